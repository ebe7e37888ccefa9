# SPDX-License-Identifier: Apache-2.0
"""The table over seeds, from files as the tools write them."""
import json

import pytest

from pic_plugin.tools.saliency_seeds import main


def write_seed(folder, offset):
    def overlap(mean):
        return dict(mean=mean + offset, share_above=0.25, other_image_mean=None)

    for name, mean in (('pic_supervised', 0.5), ('pic_random', 0.25), ('supervised_random', 0.25)):
        content = dict(overlap=[overlap(0.125), overlap(mean)])
        if name == 'pic_supervised':
            content['series'] = [
                dict(name='epoch_4', accuracy=30 + offset, mean=0.125, standard_error=0.1),
                dict(name='epoch_8', accuracy=40 + offset, mean=0.5, standard_error=0.1)]
        (folder / name).mkdir(parents=True)
        (folder / name / 'saliency.json').write_text(json.dumps(content))
    (folder / 'two_objects').mkdir()
    (folder / 'two_objects' / 'two_objects.json').write_text(json.dumps(dict(
        balance=dict(PIC=dict(mean=0.75), supervised=dict(mean=0.5 + offset)),
        difference_to_first=dict(supervised=dict(mean=-0.25)))))


def test_mean_and_deviation(tmp_path, capsys):
    write_seed(tmp_path / '0', 0.0)
    write_seed(tmp_path / '1', 0.1)
    (tmp_path / '2').mkdir()
    main([str(tmp_path), '--out', str(tmp_path / 'out')])
    text = (tmp_path / 'out' / 'saliency_seeds.md').read_text()
    # The sample standard deviation of two values is their distance / sqrt(2).
    assert '| PIC and supervised | 0.550 ± 0.071 | 0.250 ± 0.000 |  |' in text
    assert '| epoch_8 | 40.0 ± 0.1 | 0.500 ± 0.000 |' in text  # 40.05, rounded to even
    assert '| PIC | 0.750 ± 0.000 |  |' in text
    assert '| supervised | 0.550 ± 0.071 | -0.250 ± 0.000 |' in text and '2 seeds' in text
    assert 'left out seed 2' in capsys.readouterr().out
    rows = (tmp_path / 'out' / 'saliency_seeds.csv').read_text().splitlines()
    assert '1,overlap,PIC and random,mean overlap,0.350000' in rows
    assert 'epoch_8' in (tmp_path / 'out' / 'series.svg').read_text()


def test_nothing_to_read(tmp_path):
    with pytest.raises(SystemExit, match='no finished seed.*reproduce.sh'):
        main([str(tmp_path)])
    write_seed(tmp_path / '0', 0.0)
    (tmp_path / '0' / 'pic_random' / 'saliency.json').write_text('{')
    with pytest.raises(SystemExit, match='not JSON'):
        main([str(tmp_path)])
