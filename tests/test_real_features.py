"""Real recordings through both stages with the encoders that need no weights."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from crosswatch import artifacts, config, experiment, stages
from crosswatch.data.batches import open_set
from crosswatch.features.captioning.captions import read_captions
from crosswatch.features.schema import open_features

DATA = Path(__file__).parents[1].parent / "shared" / "data"
FIGHTS, GRID = DATA / "fight_surv", DATA / "grid_av_text"


def call(recipe: str, name: str, overrides: tuple[str, ...], **paths: Path) -> None:
    resolved = experiment.resolve(recipe, experiment.over(None, overrides))
    stages.call(name, values=config.plain(resolved), paths=paths)


def run_stages(recipe: str, overrides: tuple[str, ...], *, arrivals: Path, folder: Path) -> None:
    batches, captions = folder / "batches", folder / "captions"
    call(recipe, "ingest", overrides, arrivals=arrivals, out=batches)
    call(recipe, "caption", overrides, batches=batches, out=captions)
    call(recipe, "extract", overrides, batches=batches, captions=captions, out=folder / "features")


@pytest.mark.skipif(not GRID.is_dir(), reason="the GRID clips are not here")
def test_ten_spoken_sentences_with_their_transcripts(tmp_path: Path) -> None:
    overrides = (
        "ingest.adapter=single",
        "ingest.frame_px=32",
        "windows.frames=4",
        "windows.stride=1",
        "windows.signal_s=0",
        "split.by=batch",
        "split.evaluation=[bbaf2n]",
        "model.modality=visual",
        "model.pixel_head=false",
        "caption.source=supplied",
        f"caption.supplied.table={GRID / 'transcripts.csv'}",
        "caption.supplied.batch=file",
        "caption.supplied.caption=text",
        "features.encoders=[motion, mel, hashed, image, audio]",
    )
    run_stages("fmformer-furnace", overrides, arrivals=GRID, folder=tmp_path)
    transcripts = pd.read_csv(GRID / "transcripts.csv").set_index("file")["text"]
    features = open_features(tmp_path / "features")
    batches = open_set(tmp_path / "batches").batches
    assert len(batches) == 10
    sentences = []
    for batch in batches:
        (said,) = read_captions(tmp_path / "captions" / batch.id / "captions.parquet")
        assert said.caption == transcripts[f"{batch.id}.mpg"]
        start_s, stop_s = batch.span_s
        assert (said.time_s, said.until_s) == pytest.approx((start_s, stop_s), abs=0.1)
        for name in ("motion", "mel", "image", "audio", "hashed"):
            found = features.feature(batch.id, name)
            assert found is not None, name
            assert found.valid.any(), name
        sentence = features.feature(batch.id, "hashed")
        assert sentence is not None
        sentences.append(np.asarray(sentence.values[0]))
    likeness = np.stack(sentences) @ np.stack(sentences).T
    assert (np.argmax(likeness, axis=1) == np.arange(10)).all()


@pytest.mark.slow
@pytest.mark.skipif(not FIGHTS.is_dir(), reason="the surveillance clips are not here")
def test_every_surveillance_clip_with_and_without_sound(tmp_path: Path) -> None:
    overrides = (
        "ingest.index.label=label_fight",
        "ingest.index.root=clips_h160",
        "caption.source=template",
        "caption.frames.every_s=1",
        "features.encoders=[motion, mel, hashed, image]",
    )
    run_stages("clips", overrides, arrivals=FIGHTS, folder=tmp_path)
    listed = pd.read_csv(FIGHTS / "index.csv")
    heard = set(listed.loc[listed.audio_rms > 1e-2, "source"].dropna())
    features = open_features(tmp_path / "features")
    assert not artifacts.open_artifact(tmp_path / "features").quarantined
    batches = open_set(tmp_path / "batches").batches
    assert sum(len(batch.segments) for batch in batches) == len(listed)
    for batch in batches:
        motion, mel = features.feature(batch.id, "motion"), features.feature(batch.id, "mel")
        assert motion is not None
        assert np.isfinite(motion.values).all()
        assert motion.valid.all(), batch.id
        for start_s, stop_s in batch.segments:
            assert len(motion.rows_between(start_s, stop_s)), "every clip has a row"
        assert (mel is None) == (batch.audio is None)
        if batch.id in heard:
            assert mel is not None
            assert mel.valid.any()
        assert features.feature(batch.id, "hashed") is not None
        assert features.feature(batch.id, "image") is not None
