# SPDX-License-Identifier: Apache-2.0
"""The page about trainings under way, as a browser gets it."""
import json
import re
import threading
import urllib.error
import urllib.request

import pytest
from mmengine.config import Config

from pic_plugin.analysis.live_page import live_page
from pic_plugin.analysis.live_server import make_server
from pic_plugin.tools import report

pytest.importorskip('matplotlib', reason="matplotlib is not installed: pip install '.[analysis]'")


def write_run(folder, losses, rate):
    vis_data = folder / '20250101_000000' / 'vis_data'
    vis_data.mkdir(parents=True)
    cfg = Config(dict(optim_wrapper=dict(optimizer=dict(type='SGD', lr=rate, weight_decay=1e-4)),
                      train_dataloader=dict(batch_size=10, num_workers=2)))
    (vis_data / 'config.py').write_text(cfg.pretty_text)
    (vis_data / 'scalars.json').write_text(''.join(
        json.dumps(dict(loss=loss, active_classes=3000, iter=number + 1)) + '\n'
        for number, loss in enumerate(losses)))
    return folder


@pytest.fixture
def runs(tmp_path):
    return [write_run(tmp_path / 'learns <1>', [8, 7, 6, 5, 4, 4], 0.1),
            write_run(tmp_path / 'stands', [8] * 6, 0.2)]


def get(server, path='/'):
    host, port = server.server_address
    with urllib.request.urlopen(f'http://{host}:{port}{path}', timeout=60) as answer:
        return answer.read().decode()


def test_served_on_this_machine_alone(runs):
    server = make_server(runs, None, 7)
    assert server.server_address[0] == '127.0.0.1'
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        page = get(server)
        assert '<meta http-equiv="refresh" content="7">' in page
        assert 'The loss has come down from chance' in page and 'loss at chance' in page
        assert 'learns &lt;1&gt;' in page and 'learns <1>' not in page
        assert '60 images seen' in page and 'What it means and what helps' in page
        row = r'<td>optim_wrapper.optimizer.lr</td><td>0.1</td><td>0.2</td>'
        assert row in page and 'optim_wrapper.optimizer.type' not in page
        # Nothing is fetched from elsewhere.
        assert not re.findall(r'(?:src|href)="(?!data:)[^"]*"', page)
        # It is made anew.
        log = next(runs[1].glob('*/vis_data/scalars.json'))
        log.write_text(log.read_text() + json.dumps(dict(loss=2.5, iter=77)) + '\n')
        assert '770 images seen' in get(server)
        with pytest.raises(urllib.error.HTTPError, match='404'):
            get(server, '/../secret')
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_runs_of_one_name_are_told_apart(tmp_path):
    folders = [write_run(tmp_path / name / 'run', [8] * 6, 0.1) for name in ('a', 'b')]
    page = live_page([*folders, tmp_path / 'a'])
    assert all(f'<h2>{folder}</h2>' in page for folder in folders) and '<h2>a</h2>' in page


def test_before_the_first_step(tmp_path):
    assert 'Nothing was logged yet' in live_page([tmp_path])
    run = write_run(tmp_path / 'run', [], 0.1)
    next(run.glob('*/vis_data/scalars.json')).write_text('{"lr": 0.1, "iter": 1}\n')
    assert 'no step yet' in live_page([run]) and 'No verdict yet' in live_page([run])


def test_what_is_wrong_is_said(tmp_path):
    with pytest.raises(SystemExit, match='report: there is no folder'):
        report.main([str(tmp_path / 'none'), '--serve'])
    with pytest.raises(SystemExit, match='--port must be from 0'):
        report.main([str(tmp_path), '--serve', '--port', '70000'])
