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
              cloud.google.com/gke-tpu-accelerator: tpu-v5-lite-podslice
              cloud.google.com/gke-tpu-topology: 2x4
              cloud.google.com/gke-spot: 'true'
            containers:
            - name: trainer
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
              env:
              - name: TPU_NAME
                value: local
              resources:
                limits:
                  google.com/tpu: 8
            serviceAccountName: clozemill
END-OF-INPUT

# Wait for its end
kubectl wait --namespace=default '--for=jsonpath={.status.terminalState}' --timeout=8760h jobset/clozemill

# Look whether it completed
kubectl wait --namespace=default --for=condition=Completed --timeout=60s jobset/clozemill
