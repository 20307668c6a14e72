"""The last stage of `prepare`: add up the summaries of all groups, check them, write statistics.json and dataset.json."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.dataset import clusters, manifest, shard_index
from clozemill.pipelines.dataset.layout import INDEX, MANIFEST, REJECTED, VOCAB, has_index
from clozemill.pipelines.files import filesystem
from clozemill.pipelines.filtering import exclusion
from clozemill.pipelines.prepare import document_ids
from clozemill.pipelines.prepare.document_processor import SplitSummary
from clozemill.pipelines.prepare.job import Job, load_vocabulary
from clozemill.pipelines.prepare.run_identity import datasheet, recorded_options
from clozemill.pipelines.quality import gate, shortcut_probe, statistics

RUN_FIGURES = "figures.json"  # for run.json: seconds and megabytes per stage; groups that an update reused or rebuilt
_WORDS = 1000  # words that became [UNK], most frequent first


@dataclass
class DatasetStage:
    """Turns the summaries of all groups into dataset.json, written last: without it, a dataset is unfinished."""

    job: Job

    def run(self, key: int, rows: Iterable[bytes]) -> bytes:
        """Check the dataset and write the manifest.

        Raises:
            UserError: the input has no usable document, too many records are malformed, or the statistical gate fails.
        """
        totals, groups, ids, splits = statistics.StatisticsTotals(), [], [], SplitSummary()
        for row in rows:  # one by one: the statistics in a row are large
            summary = json.loads(row)
            if "splits" in summary:
                splits = SplitSummary(**summary["splits"])
                continue
            for shard in summary["shards"]:
                totals.add(shard, statistics.unpack(shard.pop("statistics")))
            if "ids" in summary:
                ids.append(summary.pop("ids"))
            groups.append(summary)
        groups.sort(key=lambda group: group["group"])
        try:
            self._check(splits, groups)
            built = self._manifest(splits, groups) | self._ids(splits, ids)
            contents = self._statistics(built, splits, groups, totals)
            self._write(built, contents)
        except UserError as error:  # so that the next run may start over with other input or options
            self.job.folder.mark_failed(error)
            raise
        reused = sum(group.get("reused", False) for group in groups)
        figures = {"stages": _times(splits, groups), "groups": {"rebuilt": len(groups) - reused, "reused": reused}}
        filesystem.write_bytes(self.job.folder.work_file(RUN_FIGURES), json.dumps(figures).encode())
        return b"done"

    def _manifest(self, splits: SplitSummary, groups: list[dict[str, Any]]) -> manifest.Manifest:
        config, vocabulary = self.job.config, load_vocabulary(self.job.vocabulary)
        documents = {
            "read": splits.read,
            "kept": sum(group["documents"] for group in groups),
            "dropped": dict(sorted(splits.dropped.items())),
            "defective": splits.bad,
            "characters": splits.characters,
            "sentences": splits.sentences,
            "tokens": splits.tokens,
            "kept_sentences": sum(group["sentences"] for group in groups),
            "kept_tokens": sum(group["tokens"] for group in groups),
            "unknown_tokens": splits.unknown,
        }
        if splits.unspaced:
            documents["unspaced_characters"] = splits.unspaced
        described = {"sha256": vocabulary.sha256, "size": len(vocabulary), "cased": config.cased}
        described |= config.rules.to_dict(config.cased)
        full = {"input": list(config.input), **recorded_options(config)}
        built = manifest.build(full, described, documents, groups, self.job.num_eval_groups) | {"datasheet": datasheet(config)}
        if self.job.evaluation:
            built["decontamination"] = {"files": list(config.decontaminate), "sha256": self.job.evaluation}
        if config.clustered:
            built["files"][clusters.NAME] = filesystem.sha256(self.job.folder.file(clusters.NAME))
        if has_index(built):
            data = shard_index.dumps({shard["name"]: shard["blocks"] for group in groups for shard in group["shards"]})
            filesystem.write_bytes(self.job.folder.file(INDEX), data, sync=False)
            built["files"][INDEX] = hashlib.sha256(data).hexdigest()
        if difference := manifest.unaccounted(built):
            raise UserError(f"{difference}: {self.job.folder.path} contains files of two runs; give another --output")
        return built

    def _ids(self, splits: SplitSummary, groups: list[dict[str, Any]]) -> dict[str, Any]:
        """Return what dataset.json records about ids, and write those to exclude that no record has."""
        recorded: dict[str, Any] = {}
        if self.job.config.id_field:
            recorded["ids"] = document_ids.total_ids(self.job.config.id_field, groups)
            if not recorded["ids"]["documents"]:
                raise UserError(f"no document has a value in the field {self.job.config.id_field!r}: see --id-field")
        if self.job.exclusion:
            excluded = exclusion.load(filesystem.read_bytes(self.job.folder.work_file(exclusion.NAME)))
            unmatched = sorted(excluded - splits.excluded.keys())
            recorded["exclusion"] = {"sha256": self.job.exclusion, "ids": len(excluded), "unmatched": len(unmatched)}
            if unmatched:
                path = self.job.folder.file(document_ids.UNMATCHED)
                filesystem.write_bytes(path, document_ids.unmatched_lines(unmatched), sync=False)
        return recorded

    def _statistics(
        self,
        built: manifest.Manifest,
        splits: SplitSummary,
        groups: list[dict[str, Any]],
        totals: statistics.StatisticsTotals,
    ) -> dict[str, Any]:
        """Return the contents of statistics.json, with the result of the statistical gate."""
        config = self.job.config
        words = sorted(splits.unknown_words.items(), key=lambda item: (-item[1], item[0]))[:_WORDS]
        contents: dict[str, Any] = {
            "format_version": statistics.FORMAT_VERSION,
            "splits": totals.splits(),
            "documents": {
                "token_lengths": [sum(column) for column in zip(*(each["token_lengths"] for each in groups), strict=True)],
                "unknown_words": [list(item) for item in words],
                "samples": dict(sorted(splits.samples.items())),
            },
            "probe": shortcut_probe.evaluate_probe(totals.probe_rows(), config.max_seq_length),
        }
        checks = gate.run_checks(built, contents, load_vocabulary(self.job.vocabulary))
        return contents | {"gate": gate.gate_result(checks, config.gate)}

    def _write(self, built: manifest.Manifest, contents: dict[str, Any]) -> None:
        """Write both files. If the gate fails, write them to the work folder, for the data card, and raise UserError."""
        data, result = statistics.dumps(contents), contents["gate"]
        built["statistics"] = {"sha256": hashlib.sha256(data).hexdigest()}
        built["gate"] = {name: result[name] for name in ("passed", "overridden")}
        failed = [check["sentence"] for check in result["checks"] if not check["passed"]]
        rejected = bool(failed) and not result["overridden"]
        folder = self.job.folder.file(REJECTED) if rejected else self.job.folder.path
        if rejected:
            filesystem.write_bytes(filesystem.join(folder, VOCAB), self.job.vocabulary)
        filesystem.write_bytes(filesystem.join(folder, statistics.STATISTICS), data)
        if not rejected:  # dataset.json is written only after all files that it names
            filesystem.sync_files(folder, [*built["files"], *(shard["name"] for shard in built["shards"])])
        filesystem.write_bytes(filesystem.join(folder, MANIFEST), manifest.dumps(built))
        if rejected:
            share = f"{len(failed)} of {len(result['checks'])}"
            raise UserError(f"the statistical gate rejected the dataset ({share} checks fail): {'; '.join(failed[:3])}")

    def _check(self, splits: SplitSummary, groups: list[dict[str, Any]]) -> None:
        limit = self.job.config.max_reject_rate
        if splits.bad > limit * splits.read:
            raise UserError(
                f"{splits.bad:,} of {splits.read:,} records are malformed, more than --max-reject-rate {limit:g} "
                f"allows, e.g. {splits.defects[0]}: see {self.job.folder.file('rejects')}, then correct them or raise the limit"
            )
        dropped = ", ".join(f"{count:,} {reason}" for reason, count in sorted(splits.dropped.items())) or "none dropped"
        if not any(group["documents"] for group in groups):
            raise UserError(
                f"the input contains no usable document ({splits.read:,} records read: {dropped}): check --input and filters"
            )
        if not any(group["documents"] for group in groups if group["split"] == "train"):
            raise UserError(
                f"all {sum(group['documents'] for group in groups):,} documents are in the eval split, which is drawn by their "
                "content: lower --eval-fraction, add text, or give another --seed"
            )
        if not any(shard["examples"] for group in groups if group["split"] == "train" for shard in group["shards"]):
            raise UserError(
                f"no training example could be built from {sum(g['documents'] for g in groups):,} documents: --pairs "
                f"{self.job.config.pairs} needs documents of two sentences, or a second document in the group: "
                "add text, or lower --num-groups"
            )


def _times(splits: SplitSummary, groups: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the seconds of all workers and megabytes per stage: of clean text before the shuffle, of shards after it."""
    text = {"mb": splits.characters / 1e6, "of": "clean text"}
    shards = {"mb": sum(shard["bytes"] for group in groups for shard in group["shards"]) / 1e6, "of": "shards"}
    times: dict[str, dict[str, Any]] = {name: {"seconds": seconds} | text for name, seconds in splits.seconds.items()}
    for group in groups:
        for name, seconds in group["seconds"].items():
            times.setdefault(name, {"seconds": 0.0} | shards)["seconds"] += seconds
    return times
