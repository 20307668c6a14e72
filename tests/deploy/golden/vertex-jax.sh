# Build europe-west4-docker.pkg.dev/my-project/images/clozemill-jax-tpu:1
gcloud builds submit . --project=my-project --config=deploy/gke/cloudbuild.yaml \
    --substitutions=_IMAGE=europe-west4-docker.pkg.dev/my-project/images/clozemill-jax-tpu:1,_STACK=jax-tpu \
    --quiet

# Submit the custom job
gcloud ai custom-jobs create --project=my-project --region=europe-west4 --display-name=clozemill \
    --config=/dev/stdin <<'END-OF-INPUT'
workerPoolSpecs:
- replicaCount: 1
  machineSpec:
    machineType: ct5lp-hightpu-8t
    tpuTopology: 2x4
  containerSpec:
    imageUri: europe-west4-docker.pkg.dev/my-project/images/clozemill-jax-tpu:1
    args:
    - pretrain
    - --engine
    - jax
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
scheduling:
  strategy: SPOT
  restartJobOnWorkerRestart: true
serviceAccount: clozemill@my-project.iam.gserviceaccount.com
END-OF-INPUT
