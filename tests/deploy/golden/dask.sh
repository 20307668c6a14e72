# Run the pipeline
clozemill prepare --input 'gs://my-bucket/corpus/*.parquet' 'gs://my-bucket/my notes/*.jsonl' \
    --vocab=gs://my-bucket/vocab.txt --output=gs://my-bucket/dataset --max-seq-length=512 --provenance \
    --runner=DaskRunner --dask_client_address=tcp://dask-scheduler:8786
