# Build europe-west4-docker.pkg.dev/my-project/images/clozemill-jax-cuda:1
gcloud builds submit . --project=my-project --config=deploy/gke/cloudbuild.yaml \
    --substitutions=_IMAGE=europe-west4-docker.pkg.dev/my-project/images/clozemill-jax-cuda:1,_STACK=jax-cuda \
    --quiet

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
  replicatedJobs:
  - name: trainer
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
              containerName: trainer
              operator: In
              values:
              - 1
              - 2
        template:
          spec:
            restartPolicy: Never
            terminationGracePeriodSeconds: 30
            nodeSelector:
              cloud.google.com/gke-accelerator: nvidia-tesla-a100
              node.kubernetes.io/instance-type: a2-highgpu-8g
            containers:
            - name: trainer
              image: europe-west4-docker.pkg.dev/my-project/images/clozemill-jax-cuda:1
              args:
              - pretrain
              - --engine
              - jax
              - --strategy
              - mirrored
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
                limits:
                  nvidia.com/gpu: 8
              volumeMounts:
              - name: shared-memory
                mountPath: /dev/shm
            serviceAccountName: clozemill
            volumes:
            - name: shared-memory
              emptyDir:
                medium: Memory
END-OF-INPUT

# Wait for its end
kubectl wait --namespace=default '--for=jsonpath={.status.terminalState}' --timeout=8760h jobset/clozemill

# Look whether it completed
kubectl wait --namespace=default --for=condition=Completed --timeout=60s jobset/clozemill
