"""Serves one session store to viewers that run in a browser, to this machine only, and makes the link that opens it.

Neuroglancer is a page of somebody else's that reads the store from here. A store is static files; what a plain web
server lacks for it are leave for other pages to read them (CORS) and parts of files, since chunks lie in shards.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from otf_stream.viewers.layers import IMAGES, read_contrast

NEUROGLANCER = "https://neuroglancer-demo.appspot.com"
_HOST = "127.0.0.1"


def application(path: Path, origins: tuple[str, ...] = (NEUROGLANCER,)) -> Starlette:
    """Return what serves the files of the store at ``path``, for pages of these origins to read."""
    cors = Middleware(
        CORSMiddleware,
        allow_origins=origins,
        allow_methods=["GET", "HEAD"],
        allow_headers=["Range"],
        expose_headers=["Content-Range", "Content-Length"],
        allow_private_network=True,
    )
    return Starlette(routes=[Mount("/", StaticFiles(directory=path))], middleware=[cors])


def neuroglancer_link(path: Path, port: int, page: str = NEUROGLANCER) -> str:
    """Return the link that opens the store in Neuroglancer: a layer for each image, at the store's contrast."""
    layers = []
    for image in IMAGES:
        if not (path / image / "zarr.json").is_file():
            continue
        low, high = read_contrast(path, image, 0) or (0.0, 65535.0)
        layer: dict[str, Any] = {
            "type": "image",
            "name": image,
            "source": f"zarr3://http://{_HOST}:{port}/{image}",
            "shaderControls": {"normalized": {"range": [low, high]}},
        }
        layers.append(layer)
    layers[-1]["visible"] = True
    for below in layers[:-1]:
        below["visible"] = False
    state = {"layers": layers, "layout": "4panel"}
    return f"{page}/#!{quote(json.dumps(state, separators=(',', ':')))}"


def serve_store(path: Path, port: int) -> None:
    """Serve the files of a store until interrupted."""
    uvicorn.run(application(path), host=_HOST, port=port, log_level="warning")
