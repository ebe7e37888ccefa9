# SPDX-License-Identifier: Apache-2.0
"""What other programs read of this project: mim's model-index.yml and CITATION.cff."""
from pathlib import Path

import pytest
import yaml
from mmengine.config import Config

from pic_plugin.version import __version__

ROOT = Path(__file__).resolve().parents[1]
INDEX = yaml.safe_load((ROOT / 'model-index.yml').read_text(encoding='utf-8'))
CITATION = yaml.safe_load((ROOT / 'CITATION.cff').read_text(encoding='utf-8'))


def test_collections_have_what_mim_shows():
    assert [collection['Name'] for collection in INDEX['Collections']] == ['PIC']
    for collection in INDEX['Collections']:
        assert (ROOT / collection['README']).is_file()
        assert collection['Paper']['URL'].startswith('https://arxiv.org/abs/')
        # mim joins lists with commas, and looks into the first value of each.
        for value in collection['Metadata'].values():
            assert isinstance(value, str) or (value and all(type(one) is str for one in value))


@pytest.mark.parametrize('model', INDEX['Models'], ids=lambda model: model['Name'])
def test_model_is_its_config(model):
    """mim finds a config by the name that the file has."""
    file = ROOT / model['Config']
    assert file.is_file() and file.stem == model['Name']
    assert model['In Collection'] in {collection['Name'] for collection in INDEX['Collections']}
    cfg = Config.fromfile(file)
    assert model['Metadata']['Epochs'] == cfg.train_cfg.max_epochs
    assert model['Metadata']['Batch Size'] == cfg.auto_scale_lr.base_batch_size
    for result in model['Results'] or []:
        assert set(result) == {'Task', 'Dataset', 'Metrics'}
        assert all(isinstance(value, float) for value in result['Metrics'].values())
        assert 'not one of pic_plugin' in result['Task'], "the authors' numbers are theirs"


@pytest.mark.mim
def test_mim_reads_it():
    """Its own parser: every model is a row with the values of its collection."""
    from mim.commands.search import convert2df
    from modelindex.load_model_index import load
    rows = convert2df(load(str(ROOT / 'model-index.yml'))).to_dict('index')
    assert set(rows) == {model['Name'] for model in INDEX['Models']}
    assert {row['model'] for row in rows.values()} == {'pic'}
    assert rows['pic_resnet50_4xb64-mcrop-coslr-200e_in1k']['imagenet-1k/top_1_accuracy'] == 68.6


def test_citation():
    """The fields that the format demands, and the version that this is."""
    assert CITATION['cff-version'] == '1.2.0'
    assert {'message', 'title', 'authors'} <= set(CITATION)
    assert CITATION['license'] == 'Apache-2.0'
    assert CITATION['version'] == __version__
    paper = CITATION['preferred-citation']
    assert paper['year'] == 2020 and paper['url'].endswith('2006.14618')
    assert [author['family-names'] for author in paper['authors']] == [
        'Cao', 'Xie', 'Liu', 'Lin', 'Zhang', 'Hu']
