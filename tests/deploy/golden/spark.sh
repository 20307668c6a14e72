# Start Beam's Spark job server
docker run --detach --rm --network=host --name=clozemill-job-server apache/beam_spark3_job_server:2.77.0 \
    --spark-master-url=spark://spark-master:7077

# Run the pipeline
clozemill prepare --input 'gs://my-bucket/corpus/*.parquet' 'gs://my-bucket/my notes/*.jsonl' \
    --vocab=gs://my-bucket/vocab.txt --output=gs://my-bucket/dataset --max-seq-length=512 --provenance \
    --runner=PortableRunner --job_endpoint=localhost:8099 --artifact_endpoint=localhost:8098 \
    --environment_type=EXTERNAL --environment_config=localhost:50000

# Stop the job server
docker stop clozemill-job-server
