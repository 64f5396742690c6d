"""Control images that networks draw: known by their files before one is loaded, then one function an image.

Depth and segmentation are networks of transformers; normals follow from depth. Soft edges, poses, straight lines and
line art are drawn by controlnet_aux, an extra. Its top imports no torch.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.errors import InputError
from harness.knob_paths import expanded
from harness.models import pickles
from harness.models.files import read_json

if TYPE_CHECKING:
    import numpy as np

Draw = Callable[["np.ndarray"], "np.ndarray"]  # pixels (H, W, 3) in [0, 1] to a control image (H, W[, 3]) in [0, 1]


class Annotator(NamedTuple):
    """What draws a hint: networks of transformers by their `model_type`, or a class of controlnet_aux and its files."""

    types: tuple[str, ...] = ()
    detector: str = ""
    files: tuple[str, ...] = ()
    palette: bool = False  # colours of classes, which controlnet_aux has


# Relative inverse depth, near is large: what MiDaS and Depth Anything predict, and depth ControlNets are shown.
_DEPTH = Annotator(("dpt", "depth_anything"))
ANNOTATORS: dict[str, Annotator] = {
    "depth": _DEPTH,
    "normal": _DEPTH,
    "segmentation": Annotator(("segformer", "upernet", "beit"), palette=True),
    "soft_edge": Annotator(detector="HEDdetector", files=("ControlNetHED.pth",)),
    "pose": Annotator(detector="OpenposeDetector", files=("body_pose_model.pth",)),
    "mlsd": Annotator(detector="MLSDdetector", files=("mlsd_large_512_fp32.pth",)),
    "lineart": Annotator(detector="LineartDetector", files=("sk_model.pth", "sk_model2.pth")),
}
CLASSES = 150  # of ADE20K, whose colours segmentation ControlNets know
RELIEF = 1.0  # height of what is nearest over what is farthest, in lengths of the image's longer side


def check(hint: str, folder: str) -> None:
    """InputError where the network in `folder` cannot draw this hint here."""
    how, path = ANNOTATORS[hint], expanded(folder)
    if not path.is_dir():
        raise InputError(f"adapters: annotator={folder!r}: there is no such folder")
    if (how.detector or how.palette) and not find_spec("controlnet_aux"):
        raise InputError(
            f"adapters: hint={hint} is drawn with the package controlnet_aux: `uv sync --extra hints`, or give "
            "images=FOLDER of drawn ones"
        )
    missing = [name for name in how.files if not (path / name).is_file()]
    if missing:
        raise InputError(f"adapters: annotator={folder!r} has no {missing[0]}, by which hint={hint} is drawn")
    if how.types:
        _check_config(hint, how, path)


def _check_config(hint: str, how: Annotator, path: Path) -> None:
    config = read_json(path / "config.json")
    if config.get("model_type") not in how.types:
        raise InputError(
            f"adapters: {path / 'config.json'} is of a {config.get('model_type')!r}; hint={hint} is drawn by one of "
            f"{', '.join(how.types)}"
        )
    if config.get("depth_estimation_type", "relative") != "relative":
        raise InputError(f"adapters: {path} tells depth in metres, near is small: take one of relative depth")
    if how.palette and len(config.get("id2label", ())) > CLASSES:
        raise InputError(f"adapters: {path} knows {len(config['id2label'])} classes; ADE20K's are {CLASSES}")
    if not (path / "preprocessor_config.json").is_file() or not [*path.glob("*.safetensors")]:
        raise InputError(f"adapters: annotator={str(path)!r} needs preprocessor_config.json and .safetensors weights")


def load(hint: str, folder: str, device: Any) -> Draw:
    """The function that draws this hint, its network on `device`."""
    how = ANNOTATORS[hint]
    if how.detector:
        return _by_controlnet_aux(how, expanded(folder), device)
    if hint == "segmentation":
        return _segmentation(expanded(folder), device)
    depth = _depth(expanded(folder), device)
    return depth if hint == "depth" else lambda image: normals(depth(image))


def _library() -> Any:
    """controlnet_aux, an extra, without what it says of packages that nothing here needs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import controlnet_aux  # pyright: ignore[reportMissingImports]
        import controlnet_aux.open_pose  # pyright: ignore[reportMissingImports]
        import controlnet_aux.util  # pyright: ignore[reportMissingImports]

        return controlnet_aux


def _by_controlnet_aux(how: Annotator, folder: Path, device: Any) -> Draw:
    import numpy as np
    from skimage.transform import resize

    from harness.models.networks import naming

    library = _library()
    with naming("annotator"), pickles.weights_only():
        if how.detector == "OpenposeDetector":  # the body alone
            detector = library.OpenposeDetector(library.open_pose.Body(str(folder / how.files[0])))
            detector.body_estimation.to(device)
        else:
            detector = getattr(library, how.detector).from_pretrained(str(folder)).to(device)

    def draw(image: np.ndarray) -> np.ndarray:
        found = detector((image * 255).round().astype(np.uint8), output_type="np")
        return np.asarray(resize(found / 255, image.shape[:2], order=1))

    return draw


def _network(auto: str, folder: Path, device: Any) -> tuple[Any, Any]:
    """A network of transformers, whole, and what prepares images for it."""
    import transformers

    from harness.models.networks import naming, quiet, whole

    own = {"local_files_only": True, "trust_remote_code": False}
    with naming("annotator"), quiet():
        loaded = getattr(transformers, auto).from_pretrained(
            folder, use_safetensors=True, output_loading_info=True, **own
        )
        network = whole(loaded, "annotator").eval().requires_grad_(False).to(device)
        return network, transformers.AutoImageProcessor.from_pretrained(folder, **own)


def _seen(processor: Any, image: np.ndarray, device: Any) -> dict[str, Any]:
    import numpy as np
    from PIL import Image

    picture = Image.fromarray((image * 255).round().astype(np.uint8))
    return {"pixel_values": processor(images=picture, return_tensors="pt")["pixel_values"].to(device)}


def _depth(folder: Path, device: Any) -> Draw:
    """Inverse depth from 0, farthest, to 1, nearest, of each image by itself."""
    network, processor = _network("AutoModelForDepthEstimation", folder, device)

    def draw(image: np.ndarray) -> np.ndarray:
        found = processor.post_process_depth_estimation(
            network(**_seen(processor, image, device)), target_sizes=[image.shape[:2]]
        )
        near = found[0]["predicted_depth"].double().cpu().numpy()
        return (near - near.min()) / max(float(near.max() - near.min()), 1e-12)

    return draw


def normals(near: np.ndarray) -> np.ndarray:
    """Normals of relative inverse depth (H, W) in [0, 1], as (n + 1)/2 in (H, W, 3): red left, green up, blue at us.

    The surface is read as a relief, `RELIEF` high: n ∝ (∂z/∂x, ∂z/∂y, 1), lengths in the image's longer side, x to the
    right and y down. So a slope that falls to the left is red, as normal ControlNets are shown it.
    """
    import numpy as np

    down, right = np.gradient(near * RELIEF * max(near.shape))
    n = np.stack([right, down, np.ones_like(near)], -1)
    return (n / np.linalg.norm(n, axis=-1, keepdims=True) + 1) / 2


def _segmentation(folder: Path, device: Any) -> Draw:
    import numpy as np

    network, processor = _network("AutoModelForSemanticSegmentation", folder, device)
    colours = np.array(_library().util.ade_palette()) / 255

    def draw(image: np.ndarray) -> np.ndarray:
        (classes,) = processor.post_process_semantic_segmentation(
            network(**_seen(processor, image, device)), target_sizes=[image.shape[:2]]
        )
        return colours[classes.cpu().numpy()]

    return draw
