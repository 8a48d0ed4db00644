"""A batch set: who is in, who is quarantined, who is only left out, and what the library does."""

import concurrent.futures
import dataclasses
import json
import shutil
import time
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from deliveries import Scene, deliver, edit_json, seal

from crosswatch import artifacts, config
from crosswatch.data.adapters import arrival as arrival_module
from crosswatch.data.batches import BatchSet, open_set
from crosswatch.data.ingestion import IngestConfig
from crosswatch.data.splits import SplitConfig
from crosswatch.data.store.settings import TransferConfig
from crosswatch.data.sync.estimate import SyncConfig
from crosswatch.data.windows import WindowConfig
from crosswatch.errors import UserError
from crosswatch.stages import ingest as stage
from crosswatch.stages.ingest import ingest

SHORT = WindowConfig(frames=2, stride=2, signal_s=4.0)
SMALL = IngestConfig(frame_px=16)
GIVEN = SyncConfig(estimate="given", camera_lag_s=0.7)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return deliver(tmp_path_factory.mktemp("original"), scene=Scene(seconds=40.0))


@dataclasses.dataclass
class Plant:
    """Deliveries, a library of known batches, and the stage over them."""

    folder: Path
    original: Path

    def deliver(
        self, name: str = "batch-1", change: Callable[[dict], object] = lambda told: None
    ) -> Path:
        folder = Path(shutil.copytree(self.original, self.folder / "arrivals" / name))

        def rename(told: dict) -> None:
            told["id"] = name
            change(told)

        return seal(folder, lambda at: edit_json(at / "batch.json", rename))

    def withdraw(self, name: str) -> None:
        (self.folder / "elsewhere").mkdir()
        shutil.move(self.folder / "arrivals" / name, self.folder / "elsewhere" / name)

    def ingest(self, **options) -> tuple[artifacts.Manifest, BatchSet]:
        settings = {
            "ingest": SMALL,
            "sync": GIVEN,
            "split": SplitConfig(),
            "windows": SHORT,
            "transfer": TransferConfig(),
        }
        out = options.setdefault("out", self.folder / "set")
        places = {"arrivals": self.folder / "arrivals", "known": self.folder / "known"}
        ingest(**{**places, **settings, **options})
        return artifacts.open_artifact(out), open_set(out)

    def stored(self, name: str) -> Path:
        (found,) = (self.folder / "known").glob(f"*/{name}")
        return found


@pytest.fixture
def plant(tmp_path: Path, original: Path) -> Plant:
    return Plant(tmp_path, original)


def ids(batch_set: BatchSet) -> list[str]:
    return sorted(batch.id for batch in batch_set.batches)


def without_video(told: dict) -> None:
    told["streams"].pop("video")


def in_kiloampere(told: dict) -> None:
    told["streams"]["signal"]["unit"] = "kA"


def slower(told: dict) -> None:
    told["streams"]["signal"]["rate_hz"] = 1.7


def test_a_delivery_without_a_window_is_quarantined_and_leaves_no_trace(plant: Plant) -> None:
    plant.deliver("batch-1")
    plant.deliver("batch-2", without_video)
    manifest, batch_set = plant.ingest()
    assert ids(batch_set) == ["batch-1"]
    assert "has no video, but windows.frames is 2" in manifest.quarantined["batch-2"]
    assert set(manifest.parents) == {"batch-1"}
    assert not any(name.startswith("batch-2/") for name in manifest.files)


def test_a_rate_that_leaves_no_window_is_named(plant: Plant) -> None:
    plant.deliver("batch-1")
    plant.deliver("batch-2", slower)
    manifest, _ = plant.ingest(windows=dataclasses.replace(SHORT, signal_s=10.0))
    assert "10 s at the declared 1.7 Hz are 17 samples" in manifest.quarantined["batch-2"]


def test_a_known_batch_that_is_too_short_today_is_a_warning(plant: Plant) -> None:
    plant.deliver("batch-1", without_video)
    plant.ingest(windows=WindowConfig(frames=0, signal_s=4.0))
    plant.withdraw("batch-1")
    plant.deliver("batch-2")
    manifest, batch_set = plant.ingest()
    assert ids(batch_set) == ["batch-2"]
    assert not manifest.quarantined
    assert any(
        text.startswith("batch-1: known from an earlier run, left out: ") and "has no video" in text
        for text in manifest.warnings
    )


def test_a_batch_unlike_the_others_is_quarantined(plant: Plant) -> None:
    plant.deliver("batch-1", in_kiloampere)
    plant.deliver("batch-2")
    plant.deliver("batch-3")
    manifest, batch_set = plant.ingest()
    assert ids(batch_set) == ["batch-2", "batch-3"]
    assert "does not go with batch-2: signal unit kA, not A." in manifest.quarantined["batch-1"]


def test_of_two_that_differ_the_known_one_counts(plant: Plant) -> None:
    plant.deliver("batch-2")
    plant.ingest()
    plant.withdraw("batch-2")
    plant.deliver(
        "batch-1", lambda told: told["streams"]["signal"].update(columns=["phase_a", "phase_b"])
    )
    manifest, batch_set = plant.ingest()
    assert ids(batch_set) == ["batch-2"]
    why = manifest.quarantined["batch-1"]
    assert "batch-2: signal columns phase_a, phase_b, not phase_a, phase_b, phase_c" in why


def test_other_settings_ingest_known_batches_again_from_their_source(plant: Plant) -> None:
    plant.deliver("batch-1")
    plant.ingest()
    source, other = plant.folder / "arrivals", plant.folder / "second"
    other.mkdir()
    shutil.move(plant.deliver("batch-2"), other / "batch-2")
    manifest, batch_set = plant.ingest(arrivals=other, ingest=IngestConfig(frame_px=24))
    assert ids(batch_set) == ["batch-1", "batch-2"]
    assert {batch.frames.shape[1] for batch in batch_set.batches} == {24}
    shutil.rmtree(source)
    manifest, batch_set = plant.ingest(arrivals=other, ingest=IngestConfig(frame_px=32))
    assert ids(batch_set) == ["batch-2"]
    (warning,) = [text for text in manifest.warnings if text.startswith("batch-1")]
    assert f"its delivery {source / 'batch-1'} is gone. Deliver it again." in warning
    assert not manifest.quarantined


def test_a_delivery_that_changed_is_not_taken_for_the_known_one(plant: Plant) -> None:
    first = plant.deliver("batch-1")
    plant.ingest()
    seal(first, lambda at: (at / "note.txt").write_text("new") and None)
    other = plant.folder / "second"
    other.mkdir()
    shutil.move(plant.deliver("batch-2"), other / "batch-2")
    manifest, batch_set = plant.ingest(arrivals=other, ingest=IngestConfig(frame_px=24))
    assert ids(batch_set) == ["batch-2"]
    assert any("has changed since. Deliver it again." in text for text in manifest.warnings)


def damage(path: Path) -> None:
    """Change a byte of the stored file, not of the copies that are linked to it."""
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.unlink()
    path.write_bytes(bytes(data))


def test_a_damaged_known_batch_is_made_again_or_left_out(plant: Plant) -> None:
    plant.deliver("batch-1")
    plant.ingest()
    sound = (plant.stored("batch-1") / "signal.npy").read_bytes()
    other = plant.folder / "second"
    other.mkdir()
    shutil.move(plant.deliver("batch-2"), other / "batch-2")
    damage(plant.stored("batch-1") / "signal.npy")
    _, batch_set = plant.ingest(arrivals=other)
    assert ids(batch_set) == ["batch-1", "batch-2"]
    assert (plant.folder / "set" / "batch-1" / "signal.npy").read_bytes() == sound
    damage(plant.stored("batch-1") / "signal.npy")
    shutil.rmtree(plant.folder / "arrivals")
    manifest, batch_set = plant.ingest(arrivals=other)
    assert ids(batch_set) == ["batch-2"]
    assert not manifest.quarantined
    assert any(text.startswith("batch-1: known from") for text in manifest.warnings)


def test_sums_that_cannot_be_read_quarantine_their_batch(plant: Plant, monkeypatch) -> None:
    plant.deliver("batch-1")
    other = plant.deliver("batch-2")
    real = arrival_module.sha256_of

    def refuse(path: Path) -> str:
        if path.parent == other:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(arrival_module, "sha256_of", refuse)
    manifest, batch_set = plant.ingest()
    assert ids(batch_set) == ["batch-1"]
    assert "Permission denied" in manifest.quarantined["batch-2"]


def test_when_nothing_is_left_the_reasons_are_said(plant: Plant) -> None:
    plant.deliver("batch-1", without_video)
    with pytest.raises(UserError, match=r"no batch is left\. batch-1: .*has no video"):
        plant.ingest()
    assert not (plant.folder / "set").exists()


def test_the_set_says_every_setting_it_was_made_with(plant: Plant) -> None:
    plant.deliver("batch-1")
    manifest, _ = plant.ingest()
    made_with = {
        "ingest": SMALL,
        "sync": GIVEN,
        "split": SplitConfig(),
        "windows": SHORT,
    }
    plain = {name: config.plain(section) for name, section in made_with.items()}
    assert manifest.config == json.loads(json.dumps(plain))
    stored = artifacts.open_artifact(plant.stored("batch-1"))
    assert stored.config == {name: manifest.config[name] for name in ("ingest", "sync")}


def test_two_runs_at_once_write_a_batch_once(plant: Plant, monkeypatch) -> None:
    plant.deliver("batch-1")
    real, written = stage.write_batch, []

    def count(*args, **options):
        written.append(1)
        time.sleep(0.5)  # long enough for the other run to come this far
        return real(*args, **options)

    monkeypatch.setattr(stage, "write_batch", count)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        runs = [
            pool.submit(
                plant.ingest, out=plant.folder / f"set-{n}", split=SplitConfig(train_share=0.5 + n)
            )
            for n in (0.0, 0.1)
        ]
        for run in runs:
            assert ids(run.result()[1]) == ["batch-1"]
    assert len(written) == 1


def test_clocks_that_cannot_be_found_leave_a_report_of_what_was_found(plant: Plant) -> None:
    plant.deliver("batch-1")
    told = artifacts.read_json(plant.folder / "arrivals" / "batch-1" / "batch.json")
    lifeless = plant.deliver("batch-2")
    rows = (lifeless / "signal.csv").read_text().splitlines()
    rng = np.random.default_rng(0)
    noise = [f"{row.split(',')[0]},{','.join(f'{x:.1f}' for x in rng.normal(9e3, 90, 3))}"
             for row in rows[1:]]  # fmt: skip
    seal(lifeless, lambda at: (at / "signal.csv").write_text("\n".join([rows[0], *noise]) + "\n"))
    assert told["streams"]["video"]["clock"] != told["streams"]["signal"]["clock"]
    manifest, batch_set = plant.ingest(sync=SyncConfig())
    assert ids(batch_set) == ["batch-1"]
    assert "sync outside limits" in manifest.quarantined["batch-2"]
    report = artifacts.read_json(plant.folder / "set" / "quarantine" / "batch-2" / "sync.json")
    assert not report["passed"]
    assert report["refused"] in manifest.quarantined["batch-2"]
    assert "quarantine/batch-2/sync.png" in manifest.files


def test_a_dead_microphone_leaves_the_batch_without_its_sound(plant: Plant) -> None:
    delivery = plant.deliver(
        "batch-1",
        lambda told: told["streams"].update(audio={"file": "audio.wav", "rate_hz": 8000}),
    )
    with wave.open(str(delivery / "audio.wav"), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(2 * 8000 * 40))
    seal(delivery, lambda at: None)
    manifest, batch_set = plant.ingest()
    assert ids(batch_set) == ["batch-1"]
    assert any("audio" in text for text in manifest.warnings)
    assert batch_set.batches[0].audio is None
