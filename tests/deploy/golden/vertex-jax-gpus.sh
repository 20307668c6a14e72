# Build europe-west4-docker.pkg.dev/my-project/images/clozemill-jax-cuda:1
gcloud builds submit . --project=my-project --config=deploy/gke/cloudbuild.yaml \
    --substitutions=_IMAGE=europe-west4-docker.pkg.dev/my-project/images/clozemill-jax-cuda:1,_STACK=jax-cuda \
    --quiet

# Submit the custom job
gcloud ai custom-jobs create --project=my-project --region=europe-west4 --display-name=clozemill \
    --config=/dev/stdin <<'END-OF-INPUT'
workerPoolSpecs:
- replicaCount: 1
  machineSpec:
    machineType: a3-highgpu-8g
    acceleratorType: NVIDIA_H100_80GB
    acceleratorCount: 8
  containerSpec:
    imageUri: europe-west4-docker.pkg.dev/my-project/images/clozemill-jax-cuda:1
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
scheduling:
  strategy: SPOT
  restartJobOnWorkerRestart: true
serviceAccount: clozemill@my-project.iam.gserviceaccount.com
END-OF-INPUT
