"""The search for near-duplicates, the first of two times that the corpus is read; its result is clusters.parquet."""

import time

from apache_beam.options.pipeline_options import PipelineOptions

from clozemill.pipelines.beam import launcher, run_setup
from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.common.formatting import counted
from clozemill.pipelines.dataset import clusters
from clozemill.pipelines.files import filesystem
from clozemill.pipelines.files.sealed_json import read_sealed, write_sealed
from clozemill.pipelines.prepare import graph, progress
from clozemill.pipelines.prepare.job import Job
from clozemill.pipelines.prepare.near_duplicate_stages import BandStage, ClusterStage, LinkStage
from clozemill.pipelines.readers.formats import Plan

_RECORD = "clusters.json"  # marks clusters.parquet as complete


def find_near_duplicates(job: Job, plan: Plan, options: PipelineOptions) -> None:
    """Write clusters.parquet, unless this run has written it already."""
    path, record = job.folder.file(clusters.NAME), job.folder.work_file(_RECORD)
    before = read_sealed(record, job.run)
    if before is not None and filesystem.exists(path) and filesystem.sha256(path) == before["sha256"]:
        return
    if launcher.is_template(options):
        raise UserError("--dedup near and --eval-by cluster need two jobs in sequence: remove --template_location")
    bands, begin = filesystem.join(job.folder.spill, "bands"), time.perf_counter()
    launcher.launch(
        lambda pipeline: graph.prepare(pipeline, plan.splits, BandStage(job), LinkStage(job), ClusterStage(job)),
        options,
        lambda: progress.compared(job, plan, bands),
        job.config.progress,
        job.workers_log,
    )
    run_setup.check_landed(path, job.folder.path)
    write_sealed(record, {"sha256": filesystem.sha256(path)}, job.run)
    filesystem.remove_tree(bands)
    found = clusters.read(path)
    print(
        f"compared all documents in {time.perf_counter() - begin:.1f} s: {len(found.keys):,} have near-duplicates, in "
        f"{counted(len(set(found.survivors.tolist())), 'cluster')}",
        flush=True,
    )
