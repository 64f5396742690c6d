"""TensorBoard: a run a cell in results/trackers/tensorboard, with its config in the HParams tab.

Written by TensorBoard's own event writer; torch's, which it stands behind, would load torch into the sweep.
"""

from __future__ import annotations

import shutil
import time
from io import BytesIO
from pathlib import Path

from PIL import Image

from harness.trackers.base import Ended, Tracker


class TensorBoard(Tracker):
    requires = ("tensorboard",)
    extra = "tensorboard"

    def __init__(self, folder: Path, sweep: str) -> None:
        self.folder = folder / "tensorboard"
        self.folder.mkdir(parents=True, exist_ok=True)

    def write(self, cell: Ended) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        run = self.folder / cell.cell_id
        shutil.rmtree(run, ignore_errors=True)  # a run of the same name would be drawn as one with two values
        writer = EventFileWriter(str(run))
        values = [Summary.Value(tag=name, simple_value=value) for name, value in cell.metrics.items()]
        if cell.picture is not None:
            values.append(Summary.Value(tag="images", image=Summary.Image(**_png(cell.picture))))
        status = api_pb2.STATUS_SUCCESS if cell.ok else api_pb2.STATUS_FAILURE
        end = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=time.time())
        told = metadata.create_summary_metadata(plugin_data_pb2.HParamsPluginData(session_end_info=end))
        values.append(Summary.Value(tag=metadata.SESSION_END_INFO_TAG, metadata=told, tensor=metadata.NULL_TENSOR))
        for summary in (hparams_pb({"name": cell.name, **cell.config}, trial_id=cell.cell_id), Summary(value=values)):
            writer.add_event(Event(wall_time=time.time(), step=0, summary=summary))
        writer.close()

    def close(self) -> str:
        return f"tensorboard: tensorboard --logdir {self.folder}"


def _png(picture: Image.Image) -> dict[str, object]:
    content = BytesIO()
    picture.save(content, "PNG")
    size = {"height": picture.height, "width": picture.width, "colorspace": 3}
    return {**size, "encoded_image_string": content.getvalue()}


TRACKER = TensorBoard
