# SPDX-License-Identifier: Apache-2.0
"""ONNX files in onnxruntime, for batches of sizes that the export did not see."""
import numpy as np
import pytest
import torch
from mmpretrain.registry import MODELS

from pic_plugin.features import onnx as module
from pic_plugin.features.embedding import LoadedBackbone
from pic_plugin.features.onnx import check_onnx, export_onnx


def backbone_of(normalise):
    torch.manual_seed(0)
    network = MODELS.build(dict(type='MobileNetV3', arch='small'))
    network.init_weights()
    return LoadedBackbone(network, [120, 110, 100], [60, 60, 60], 'RGB', 64, normalise)


@pytest.mark.parametrize('normalise', [False, True])
def test_equal_to_the_network(tmp_path, normalise):
    onnxruntime = pytest.importorskip('onnxruntime', reason="pip install '.[onnx]'")
    pytest.importorskip('onnxscript', reason="pip install '.[onnx]'")
    backbone = backbone_of(normalise)
    out = tmp_path / 'new' / 'backbone.onnx'
    assert export_onnx(backbone, out) < 1e-4
    images = torch.rand(5, 3, 64, 64) * (255 if normalise else 1)
    session = onnxruntime.InferenceSession(str(out), providers=['CPUExecutionProvider'])
    found = session.run(['features'], {'images': images.numpy()})[0]
    with torch.no_grad():
        np.testing.assert_allclose(found, backbone(images).numpy(), atol=1e-4)
    with pytest.raises(IsADirectoryError):
        export_onnx(backbone, out.parent)
    assert [file.name for file in out.parent.iterdir()] == ['backbone.onnx']


@pytest.mark.parametrize('number', [float('nan'), 0.0])
def test_features_that_could_not_be_compared(tmp_path, number):
    pytest.importorskip('onnxruntime', reason="pip install '.[onnx]'")
    pytest.importorskip('onnxscript', reason="pip install '.[onnx]'")
    backbone = backbone_of(normalise=False)
    last = [one for one in backbone.modules() if isinstance(one, torch.nn.BatchNorm2d)][-1]
    for weight in last.parameters():
        torch.nn.init.constant_(weight, number)
    with pytest.raises(ValueError, match=f'the largest feature of the network is {number}'):
        export_onnx(backbone, tmp_path / 'backbone.onnx')
    for side in (0, -5):
        with pytest.raises(ValueError, match='side must be at least 1 pixel'):
            export_onnx(backbone, tmp_path / 'backbone.onnx', side)
    assert not list(tmp_path.iterdir())


def test_without_the_libraries(monkeypatch):
    monkeypatch.setattr(module.importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(ModuleNotFoundError, match='pip install onnx onnxruntime onnxscript'):
        check_onnx()
