# Start the cluster and Beam's job server
kubectl apply --namespace=default --filename=- <<'END-OF-INPUT'
apiVersion: flink.apache.org/v1beta1
kind: FlinkDeployment
metadata:
  name: clozemill-flink
  namespace: default
spec:
  image: flink:1.20
  flinkVersion: v1_20
  serviceAccount: flink
  flinkConfiguration:
    taskmanager.numberOfTaskSlots: '2'
    parallelism.default: '20'
    taskmanager.memory.managed.fraction: '0.4'
  jobManager:
    replicas: 1
    resource:
      memory: 2048m
      cpu: 1
  taskManager:
    replicas: 10
    resource:
      memory: 4096m
      cpu: 2
    podTemplate:
      spec:
        containers:
        - name: flink-main-container
        - name: python-workers
          image: europe-west4-docker.pkg.dev/my-project/images/clozemill:1
          args:
          - --worker_pool
          ports:
          - name: workers
            containerPort: 50000
          resources:
            requests:
              cpu: '2'
              memory: 4Gi
            limits:
              memory: 8Gi
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: clozemill-job-server
  namespace: default
  labels:
    app: clozemill-job-server
spec:
  replicas: 1
  selector:
    matchLabels:
      app: clozemill-job-server
  template:
    metadata:
      labels:
        app: clozemill-job-server
    spec:
      containers:
      - name: job-server
        image: apache/beam_flink1.20_job_server:2.77.0
        args:
        - --flink-master=clozemill-flink-rest:8081
        - --job-host=0.0.0.0
        - --job-port=8099
        - --artifact-port=8098
        - --expansion-port=8097
        ports:
        - name: jobs
          containerPort: 8099
        - name: artifacts
          containerPort: 8098
        resources:
          requests:
            cpu: 500m
            memory: 1Gi
          limits:
            memory: 2Gi
---
apiVersion: v1
kind: Service
metadata:
  name: clozemill-job-server
  namespace: default
spec:
  selector:
    app: clozemill-job-server
  ports:
  - name: jobs
    port: 8099
    targetPort: jobs
  - name: artifacts
    port: 8098
    targetPort: artifacts
END-OF-INPUT

# Wait for the job server
kubectl wait --namespace=default --for=condition=available --timeout=10m deployment/clozemill-job-server

# Submit the job
kubectl create --namespace=default --filename=- <<'END-OF-INPUT'
apiVersion: batch/v1
kind: Job
metadata:
  name: clozemill
  namespace: default
spec:
  backoffLimit: 0
  template:
    spec:
      restartPolicy: Never
      containers:
      - name: submit
        image: europe-west4-docker.pkg.dev/my-project/images/clozemill:1
        command:
        - clozemill
        args:
        - prepare
        - --input
        - gs://my-bucket/corpus/*.parquet
        - gs://my-bucket/my notes/*.jsonl
        - --vocab=gs://my-bucket/vocab.txt
        - --output=gs://my-bucket/dataset
        - --max-seq-length=512
        - --provenance
        - --runner=PortableRunner
        - --job_endpoint=clozemill-job-server:8099
        - --artifact_endpoint=clozemill-job-server:8098
        - --environment_type=EXTERNAL
        - --environment_config=localhost:50000
        - --no-progress
        resources:
          requests:
            cpu: '1'
            memory: 2Gi
          limits:
            memory: 4Gi
END-OF-INPUT

# Follow its log
kubectl logs --namespace=default --follow --pod-running-timeout=10m job/clozemill

# Look whether it completed
kubectl wait --namespace=default --for=condition=complete --timeout=60s job/clozemill
