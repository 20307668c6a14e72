# Build europe-west4-docker.pkg.dev/my-project/images/clozemill-tpu:1
gcloud builds submit . --project=my-project --config=deploy/gke/cloudbuild.yaml \
    --substitutions=_IMAGE=europe-west4-docker.pkg.dev/my-project/images/clozemill-tpu:1 --quiet

# Get access to the cluster
gcloud container clusters get-credentials my-cluster --project=my-project --location=europe-west4

# Submit the JobSet
kubectl create --namespace=default --filename=- <<'END-OF-INPUT'
apiVersion: jobset.x-k8s.io/v1alpha2
kind: JobSet
metadata:
  name: clozemill
  namespace: default
spec:
  failurePolicy:
    maxRestarts: 10
    rules:
    - action: FailJobSet
      onJobFailureReasons:
      - PodFailurePolicy
  successPolicy:
    operator: All
    targetReplicatedJobs:
    - coordinator
  replicatedJobs:
  - name: hosts
    replicas: 1
    template:
      spec:
        parallelism: 4
        completions: 4
        completionMode: Indexed
        backoffLimit: 0
        template:
          spec:
            restartPolicy: Never
            terminationGracePeriodSeconds: 30
            nodeSelector:
              cloud.google.com/gke-tpu-accelerator: tpu-v5-lite-podslice
              cloud.google.com/gke-tpu-topology: 4x4
              cloud.google.com/gke-spot: 'true'
            containers:
            - name: host
              image: europe-west4-docker.pkg.dev/my-project/images/clozemill-tpu:1
              command:
              - python
              - /opt/clozemill/tpu_host.py
              ports:
              - name: tensorflow
                containerPort: 8470
              - name: mesh
                containerPort: 8471
              resources:
                limits:
                  google.com/tpu: 4
            serviceAccountName: clozemill
  - name: coordinator
    replicas: 1
    template:
      spec:
        parallelism: 1
        completions: 1
        backoffLimit: 0
        podFailurePolicy:
          rules:
          - action: FailJob
            onExitCodes:
              containerName: coordinator
              operator: In
              values:
              - 1
              - 2
        template:
          spec:
            restartPolicy: Never
            terminationGracePeriodSeconds: 30
            containers:
            - name: coordinator
              image: europe-west4-docker.pkg.dev/my-project/images/clozemill-tpu:1
              args:
              - pretrain
              - --strategy
              - tpu
              - --data
              - gs://my-bucket/dataset
              - --preset
              - base
              - --batch-size
              - '256'
              - --steps
              - '900000'
              - --precision
              - bfloat16
              - --output
              - gs://my-bucket/run
              resources:
                requests:
                  cpu: '4'
                  memory: 16Gi
                limits:
                  memory: 32Gi
              env:
              - name: TPU_NAME
                value: grpc://clozemill-hosts-0-0.clozemill:8470,grpc://clozemill-hosts-0-1.clozemill:8470,grpc://clozemill-hosts-0-2.clozemill:8470,grpc://clozemill-hosts-0-3.clozemill:8470
              - name: TPU_ACCELERATOR_TYPE
                value: v5litepod-16
            serviceAccountName: clozemill
END-OF-INPUT

# Wait for its end
kubectl wait --namespace=default '--for=jsonpath={.status.terminalState}' --timeout=8760h jobset/clozemill

# Look whether it completed
kubectl wait --namespace=default --for=condition=Completed --timeout=60s jobset/clozemill
