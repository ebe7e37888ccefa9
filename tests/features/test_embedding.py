# SPDX-License-Identifier: Apache-2.0
"""load_backbone and embed against mmpretrain's own network, on all kinds of input."""
import csv
import shutil

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmpretrain.registry import MODELS
from PIL import Image

import pic_plugin
from pic_plugin.features.embedding import untrained_twin
from pic_plugin.tools import embed as tool
from toys.pages import block
from toys.pictures import picture, write_pictures

MEAN, STD = [120.0, 110.0, 100.0], [60.0, 50.0, 55.0]


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    """As mmengine leaves one: weights, and the config as text."""
    return write_checkpoint(tmp_path_factory.mktemp('run') / 'epoch_3.pth',
                            dict(type='ResNet', depth=18))


def write_checkpoint(file, backbone, to_rgb=True, mean=MEAN, std=STD):
    torch.manual_seed(0)
    network = MODELS.build(backbone)
    network.init_weights()
    for module in network.modules():
        if hasattr(module, 'running_mean') and module.running_mean is not None:
            module.running_mean.normal_(0, 0.1)
    cfg = Config(dict(
        model=dict(type='PIC', backbone=backbone, data_preprocessor=dict(
            type='SelfSupDataPreprocessor', mean=mean, std=std, to_rgb=to_rgb)),
        train_dataloader=dict(dataset=dict(pipeline=[
            dict(type='torchvision/RandomResizedCrop', size=32)]))))
    state = {f'backbone.{name}': value for name, value in network.state_dict().items()}
    torch.save(dict(state_dict=state, meta=dict(cfg=cfg.pretty_text, epoch=3)), file)
    return file


def expected(checkpoint, pixels):
    """(C,) by hand: RGB (32, 32, 3) -> normalised -> mmpretrain's network -> mean over places."""
    network = MODELS.build(dict(type='ResNet', depth=18))
    network.eval()  # mmpretrain's returns nothing
    state = torch.load(checkpoint, weights_only=True)['state_dict']
    network.load_state_dict({name[len('backbone.'):]: value for name, value in state.items()})
    image = (pixels.astype(np.float64) - MEAN) / STD
    tensor = torch.tensor(image).permute(2, 0, 1)[None]
    with torch.no_grad():
        return network.double()(tensor)[-1].mean((2, 3))[0].numpy()


def test_a_plain_module(checkpoint):
    backbone = pic_plugin.load_backbone(checkpoint)
    assert isinstance(backbone, torch.nn.Module) and not backbone.training
    assert backbone.mean == tuple(MEAN) and backbone.std == tuple(STD)
    assert (backbone.channel_order, backbone.image_size, backbone.feature_dim) == ('RGB', 32, 512)
    pixels = picture(1)
    image = torch.tensor((pixels - np.array(MEAN)) / STD, dtype=torch.float32).permute(2, 0, 1)
    with torch.no_grad():
        found = backbone(image[None].repeat(3, 1, 1, 1))
    assert found.shape == (3, 512)
    np.testing.assert_allclose(found[2], expected(checkpoint, pixels), atol=1e-5)
    inside = pic_plugin.load_backbone(checkpoint, normalise=True)
    with torch.no_grad():
        again = inside(torch.tensor(pixels).permute(2, 0, 1)[None])
    np.testing.assert_allclose(again[0], found[0], atol=1e-5)
    # Its weights are the backbone's alone.
    assert all(name.startswith('backbone.') for name in backbone.state_dict())


def test_networks_that_want_bgr(tmp_path):
    file = write_checkpoint(tmp_path / 'bgr.pth', dict(type='ResNet', depth=18), to_rgb=False)
    backbone = pic_plugin.load_backbone(file, normalise=True)
    assert backbone.channel_order == 'BGR'
    pixels = picture(2)
    with torch.no_grad():
        found = backbone(torch.tensor(pixels).permute(2, 0, 1)[None])
    np.testing.assert_allclose(found[0], expected(file, pixels[:, :, ::-1].copy()), atol=1e-5)


def test_one_number_for_all_channels_and_grey_networks(tmp_path):
    """A pipeline of mmpretrain's transforms does not say how many channels pictures have."""
    colours = dict(type='ResNet', depth=18)
    first, second = (tmp_path / name for name in ('one.pth', 'grey.pth'))
    for file, backbone in ((first, colours), (second, dict(colours, in_channels=1))):
        write_checkpoint(file, backbone, mean=[120.0], std=[60.0])
    three = write_checkpoint(tmp_path / 'three.pth', colours, mean=[120.0] * 3, std=[60.0] * 3)
    folder = write_pictures(tmp_path / 'pictures', 2)
    found, wanted = (pic_plugin.embed(folder, file).features for file in (first, three))
    np.testing.assert_array_equal(found, wanted)
    assert pic_plugin.load_backbone(first).mean == (120.0, ) * 3
    found = pic_plugin.embed(folder, second).features
    greys = [np.asarray(Image.fromarray(picture(number)).convert('L')) for number in range(2)]
    # Two decoders' grey differs by a level here and there.
    np.testing.assert_allclose(found, pic_plugin.embed(greys, second).features, atol=0.05)


def test_transformers_give_one_vector(tmp_path):
    file = write_checkpoint(tmp_path / 'vit.pth', dict(
        type='VisionTransformer', arch='deit-tiny', img_size=32, patch_size=8))
    assert pic_plugin.load_backbone(file)(torch.zeros(2, 3, 32, 32)).shape == (2, 192)


def test_a_folder_with_all_it_may_hold(checkpoint, tmp_path, capsys):
    folder = write_pictures(tmp_path / 'a ü', 5)
    write_pictures(folder / 'more', 2, side=50, first=5)
    (folder / 'broken.png').write_bytes(b'x')
    features, names = pic_plugin.embed(folder, checkpoint, batch_size=3)
    assert features.shape == (7, 512) and features.dtype == np.float32
    assert names[:2] == ['0000.png', '0001.png'] and names[-1] == 'more/0006.png'
    (folder / 'raw.nef').write_bytes(b'x')
    pic_plugin.embed(folder, checkpoint)
    err = capsys.readouterr().err
    assert 'left out broken.png' in err and 'raw.nef' in err
    np.testing.assert_allclose(features[3], expected(checkpoint, picture(3)), atol=1e-5)


def test_lists_of_files_pictures_and_arrays(checkpoint, tmp_path):
    folder = write_pictures(tmp_path, 3)
    wanted = pic_plugin.embed(folder, checkpoint).features
    arrays = [picture(number) for number in range(3)]
    files = sorted(folder.glob('*.png'))
    found = pic_plugin.embed(files, checkpoint)
    assert found.names == [str(file) for file in files]
    for given in (arrays, np.stack(arrays), [Image.fromarray(one) for one in arrays]):
        again = pic_plugin.embed(given, checkpoint)
        assert again.names == ['0', '1', '2']
        np.testing.assert_allclose(again.features, wanted, atol=1e-5)
    np.testing.assert_allclose(found.features, wanted, atol=1e-5)


@pytest.mark.parametrize('mode', ['P', '1', 'L', 'LA', 'RGBA', 'CMYK', 'HSV'])
def test_pictures_of_any_mode_are_colours(checkpoint, mode):
    image = Image.fromarray(picture(1)).convert(mode)
    found, wanted = pic_plugin.embed([image, image.convert('RGB')], checkpoint).features
    np.testing.assert_array_equal(found, wanted)


def test_photos_in_memory_are_turned_upright_as_files_are(checkpoint, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation
    file = tmp_path / 'turned.jpg'
    Image.fromarray(picture(1)).save(file, exif=exif, quality=100)
    given = [file, Image.open(file)]
    found, wanted = pic_plugin.embed(given, checkpoint).features
    # One decoder for a file, another in Pillow: pixels differ by a few of 256 levels.
    assert np.abs(found - wanted).max() < 0.02 < np.abs(
        wanted - pic_plugin.embed([picture(1)], checkpoint).features).max()


def test_pictures_without_a_usable_feature_are_left_out(checkpoint, tmp_path, capsys):
    backbone = pic_plugin.load_backbone(checkpoint, normalise=True)
    wanted = pic_plugin.embed([picture(number) for number in range(5)], backbone).features

    def spoil(module, inputs, outputs):
        dark = inputs[0].mean((1, 2, 3)) < -1.9
        return (torch.where(dark[:, None, None, None], torch.nan, outputs[-1]), )

    backbone.backbone.register_forward_hook(spoil)
    given = [picture(number) for number in range(5)]
    given[1:1] = [np.zeros_like(given[0])]
    found = pic_plugin.embed(given, backbone, batch_size=4)
    assert found.names == ['0', '2', '3', '4', '5']
    np.testing.assert_allclose(found.features, wanted, atol=1e-5)
    assert 'left out 1: its feature is not finite' in capsys.readouterr().err
    with pytest.raises(ValueError, match='no feature is finite: .* earlier checkpoint'):
        pic_plugin.embed(given[1:2], backbone)


def test_a_photo_in_memory_that_is_cut_off_is_left_out(checkpoint, tmp_path, capsys):
    file = write_pictures(tmp_path, 1, side=200, ending='.jpg') / '0000.jpg'
    file.write_bytes(file.read_bytes()[:2000])
    assert pic_plugin.embed([Image.open(file), picture(1)], checkpoint).names == ['1']
    assert 'left out 0: it cannot be read' in capsys.readouterr().err


@pytest.mark.parametrize('ending', ['npy', 'npz', 'csv', 'parquet'])
def test_files_hold_every_bit(checkpoint, tmp_path, ending):
    if ending == 'parquet':
        pytest.importorskip('pyarrow', reason='pyarrow is not installed')
    folder = write_pictures(tmp_path / 'data', 3)
    out = tmp_path / 'out' / f'features.{ending}'
    tool.main([str(folder), str(checkpoint), '--out', str(out), '--batch-size', '2'])
    wanted, names = pic_plugin.embed(folder, checkpoint, batch_size=2)
    if ending == 'npy':
        features, found = np.load(out), out.with_suffix('.txt').read_text().split()
    elif ending == 'npz':
        content = np.load(out)
        features, found = content['features'], list(content['names'])
    elif ending == 'csv':
        with open(out, newline='') as stream:
            rows = list(csv.reader(stream))[1:]
        found, features = [row[0] for row in rows], np.array([row[1:] for row in rows], np.float32)
    else:
        import pyarrow.parquet
        table = pyarrow.parquet.read_table(out)
        found = table['name'].to_pylist()
        features = np.array(table['feature'].to_pylist(), np.float32)
    assert found == names
    assert np.array_equal(features, wanted)
    assert not list(out.parent.glob('*partial*'))


def test_a_name_with_a_line_break_has_one_line(checkpoint, tmp_path):
    folder = write_pictures(tmp_path / 'data', 2)
    (folder / '0001.png').rename(folder / 'a\nb\r.png')
    names = pic_plugin.embed(folder, checkpoint, out=tmp_path / 'features.npy').names
    assert names == ['0000.png', 'a\nb\r.png']
    assert (tmp_path / 'features.txt').read_text().splitlines() == ['0000.png', r'a\nb\r.png']


def test_a_work_folder_means_its_newest_checkpoint(checkpoint):
    with torch.no_grad():
        images = torch.rand(1, 3, 32, 32)
        assert torch.equal(pic_plugin.load_backbone(checkpoint.parent)(images),
                           pic_plugin.load_backbone(checkpoint)(images))


def test_the_untrained_twin_is_another_network(checkpoint):
    twin, trained = untrained_twin(checkpoint), pic_plugin.load_backbone(checkpoint)
    assert twin.state_dict().keys() == trained.state_dict().keys()
    images = torch.rand(1, 3, 32, 32)
    assert not torch.allclose(twin(images), trained(images), atol=1e-3)


def test_what_is_wrong_is_said(checkpoint, tmp_path):
    folder = write_pictures(tmp_path / 'data', 2)
    with pytest.raises(ValueError, match='must end in'):
        pic_plugin.embed(folder, checkpoint, out=tmp_path / 'features.xlsx')
    with pytest.raises(IsADirectoryError, match='is a folder'):
        (tmp_path / 'folder.npy').mkdir()
        pic_plugin.embed(folder, tmp_path / 'none.pth', out=tmp_path / 'folder.npy')
    with pytest.raises(FileNotFoundError, match='no checkpoint'):
        pic_plugin.embed(folder, tmp_path / 'none.pth')
    with pytest.raises(FileNotFoundError, match='holds no epoch_N.pth'):
        pic_plugin.embed(folder, folder)
    with pytest.raises(FileNotFoundError, match='there is no folder'):
        pic_plugin.embed(tmp_path / 'none', checkpoint)
    with pytest.raises(ValueError, match='the list is empty'):
        pic_plugin.embed([], checkpoint)
    with pytest.raises(ValueError, match='none of the 1 images'):
        pic_plugin.embed([np.zeros((4, 4, 3))], checkpoint)
    for one in (picture(1), picture(1)[..., 0]):
        with pytest.raises(ValueError, match='for one picture'):
            pic_plugin.embed(one, checkpoint)
    with pytest.raises(ValueError, match=r'give \[picture\]'):
        pic_plugin.embed(Image.fromarray(picture(1)), checkpoint)
    with pytest.raises(ValueError, match='0000.png is a file: give the folder'):
        pic_plugin.embed(folder / '0000.png', checkpoint)
    with pytest.raises(ValueError, match='batch size'):
        pic_plugin.embed(folder, checkpoint, batch_size=0)
    for device in ('cuda', 'gpu'):  # a GPU is hidden from tests
        with pytest.raises(ValueError, match=f"cannot use the device '{device}' .*--device cpu"):
            pic_plugin.embed(folder, checkpoint, device=device)
    with pytest.raises(SystemExit, match='embed: there is no folder'):
        tool.main([str(tmp_path / 'none'), str(checkpoint), '--out', str(tmp_path / 'a.npy')])


def test_the_lines_that_the_page_shows(checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_pictures(tmp_path / 'FOLDER', 2)
    (tmp_path / 'work_dirs' / 'mine').mkdir(parents=True)
    shutil.copy(checkpoint, tmp_path / 'work_dirs' / 'mine')
    namespace = {}
    exec(block('embed').text, namespace)
    assert namespace['features'].shape == (2, 512)
    assert namespace['names'] == ['0000.png', '0001.png']
    assert namespace['backbone'].feature_dim == 512
