# Build europe-west4-docker.pkg.dev/my-project/images/clozemill:1
gcloud builds submit . --project=my-project --config=deploy/dataflow/cloudbuild.yaml \
    --substitutions=_IMAGE=europe-west4-docker.pkg.dev/my-project/images/clozemill:1 --quiet

# Write the Flex Template
gcloud dataflow flex-template build gs://my-bucket/clozemill/templates/clozemill.json --project=my-project \
    --image=europe-west4-docker.pkg.dev/my-project/images/clozemill:1 --sdk-language=PYTHON \
    --metadata-file=deploy/dataflow/metadata.json

# Start the job
gcloud dataflow flex-template run clozemill --project=my-project --region=europe-west4 \
    --template-file-gcs-location=gs://my-bucket/clozemill/templates/clozemill.json \
    --worker-machine-type=n2-standard-4 --num-workers=2 --max-workers=20 \
    --temp-location=gs://my-bucket/clozemill/tmp --staging-location=gs://my-bucket/clozemill/staging \
    --subnetwork=regions/europe-west4/subnetworks/default --disable-public-ips \
    --service-account-email=clozemill@my-project.iam.gserviceaccount.com \
    '--additional-pipeline-options=^~^sdk_location=container~disk_size_gb=100' \
    '--parameters=^~^input=gs://my-bucket/corpus/*.parquet '"'"'gs://my-bucket/my notes/*.jsonl'"'"'~vocab=gs://my-bucket/vocab.txt~output=gs://my-bucket/dataset~max_seq_length=512~provenance=true~sdk_container_image=europe-west4-docker.pkg.dev/my-project/images/clozemill:1'
