# SPDX-License-Identifier: Apache-2.0
"""The report in headless Chromium: it renders, its parts work, and it asks for nothing else.

Needs playwright (``pip install playwright``) and Chromium (Debian's package ``chromium``, or
``playwright install chromium``). Set PIC_PLUGIN_REQUIRE_BROWSER=1 where their absence is a failure.
"""
import importlib.util
import io
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from pic_plugin.analysis.page import (
    Section,
    build_page,
    figure,
    missing,
    picture_map,
    table,
)

REQUIRED = os.environ.get('PIC_PLUGIN_REQUIRE_BROWSER') == '1'
CHROMIUM = shutil.which('chromium') or shutil.which('chromium-browser')
SIZES = {'phone': dict(width=360, height=740), 'desktop': dict(width=1200, height=900)}

if importlib.util.find_spec('playwright') is None or CHROMIUM is None:
    fault = 'playwright or Chromium is not installed: the report is not tried in a browser'
    if REQUIRED:
        raise RuntimeError(fault)
    pytest.skip(fault, allow_module_level=True)

from playwright.sync_api import sync_playwright  # noqa: E402


def draw():
    from matplotlib.figure import Figure
    figure = Figure(figsize=(9, 5))
    figure.subplots().plot([0, 1, 2], [2, 0, 1])
    return figure


@pytest.fixture(scope='module')
def file(tmp_path_factory):
    generator = np.random.default_rng(0)
    points = generator.random((40, 2))
    pictures = list(generator.integers(0, 256, (40, 48, 48, 3), dtype=np.uint8))
    names = [f'</script><b>{number}.png' for number in range(40)]
    page = build_page('Run <1>', 'a & b', [
        Section('health', 'Health', [
            figure(draw, 'A "curve"', 'Caption'), table(
                ['a', 'b'], [[1, 0.123456], ['b', 3], [2, 20]], 'Numbers')]),
        Section('gone', 'Gone', [missing('no <data>')]),
        Section('map', 'Map', [
            picture_map(points, ['cat', 'dog'] * 20, names, pictures)])])
    path = tmp_path_factory.mktemp('page') / 'report.html'
    path.write_text(page, encoding='utf-8')
    return path


@pytest.fixture(scope='module')
def browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=['--no-sandbox'])
        yield browser
        browser.close()


@pytest.fixture(params=[(size, scheme) for size in SIZES for scheme in ('light', 'dark')],
                ids=lambda param: '-'.join(param))
def page(request, browser, file):
    size, scheme = request.param
    context = browser.new_context(viewport=SIZES[size], color_scheme=scheme, offline=True)
    page = context.new_page()
    page.faults = []
    page.scheme = scheme
    page.on('console', lambda message: page.faults.append(message.text)
            if message.type in ('error', 'warning') else None)
    page.on('pageerror', lambda error: page.faults.append(str(error)))
    page.on('request', lambda sent: page.faults.append(sent.url)
            if not sent.url.startswith(('data:', file.as_uri())) else None)
    page.goto(file.as_uri())
    yield page
    assert page.faults == []
    context.close()


def shot(target):
    return np.asarray(Image.open(io.BytesIO(target.screenshot())).convert('L')).astype(float)


def test_it_renders(page):
    whole = shot(page)
    assert whole.std() > 10
    assert (np.median(whole) > 200) == (page.scheme == 'light')
    assert page.locator('h1').inner_text() == 'Run <1>'
    assert page.locator('.missing').inner_text() == 'Not drawn: no <data>'
    # Nothing sticks out of a phone's screen.
    assert page.evaluate('document.documentElement.scrollWidth <= innerWidth')
    figure = page.locator('.zoom img')
    assert figure.evaluate('image => image.naturalWidth') > 500
    assert figure.get_attribute('alt') == 'A "curve"'
    drawn = shot(figure)
    assert drawn.std() > 5 and (np.median(drawn) > 200) == (page.scheme == 'light')
    page.locator('summary').click()
    assert page.locator('td').all_inner_texts() == ['1', '0.1235', 'b', '3', '2', '20']


def test_figures_open_by_keyboard_and_close_again(page):
    page.locator('.zoom').focus()
    page.keyboard.press('Enter')
    large = page.locator('dialog img')
    assert large.is_visible() and large.get_attribute('alt') == 'A "curve"'
    assert large.bounding_box()['width'] > page.locator('.zoom img').bounding_box()['width']
    page.keyboard.press('Escape')
    assert not large.is_visible()
    assert page.evaluate('document.activeElement.className') == 'zoom'
    page.locator('.zoom').click()
    page.locator('dialog button').click()
    assert not large.is_visible()


def test_tables_are_sorted_by_a_column(page):
    page.locator('summary').click()
    column = lambda: page.locator('td:nth-child(2)').all_inner_texts()  # noqa: E731
    head = page.locator('th').nth(1)
    head.locator('button').focus()
    page.keyboard.press('Enter')
    # As numbers, with what is none at the end.
    assert column() == ['0.1235', '3', '20'] and head.get_attribute('aria-sort') == 'ascending'
    head.locator('button').click()
    assert column() == ['20', '3', '0.1235'] and head.get_attribute('aria-sort') == 'descending'
    page.locator('th button').first.click()
    assert page.locator('td:nth-child(1)').all_inner_texts() == ['1', '2', 'b']
    assert head.get_attribute('aria-sort') is None


def test_hover_shows_the_picture(page):
    tip = page.locator('.tip')
    assert not tip.is_visible()
    dot = page.locator('.dot').nth(7)
    dot.scroll_into_view_if_needed()
    dot.hover(force=True)
    assert tip.is_visible()
    # One of the dots that lie there; names are not taken for HTML.
    assert '</script><b>' in tip.inner_text() and tip.inner_text()[:3] in ('cat', 'dog')
    assert shot(tip.locator('.thumb')).std() > 20  # noise, as the pictures are
    box, width = tip.bounding_box(), page.viewport_size['width']
    assert box['x'] >= 0 and box['x'] + box['width'] <= width


def test_arrows_and_zoom(page):
    svg = page.locator('.map > svg')
    svg.focus()
    page.keyboard.press('ArrowRight')
    page.keyboard.press('ArrowRight')
    spoken = page.locator('[aria-live]')
    assert spoken.inner_text().startswith('2 of 40, cat')
    before = svg.get_attribute('viewBox')
    width = page.locator('.dot').first.bounding_box()['width']
    page.keyboard.press('+')
    closer = svg.get_attribute('viewBox')
    assert float(closer.split()[2]) < float(before.split()[2])
    # A dot grows by less than its distance to the others.
    assert 1 < page.locator('.dot').first.bounding_box()['width'] / width < 1.5
    page.locator('.out').click()
    page.locator('.out').click()
    assert svg.get_attribute('viewBox') == before
    page.locator('.in').click()
    assert float(svg.get_attribute('viewBox').split()[2]) < float(before.split()[2])
    svg.focus()
    page.keyboard.press('Escape')
    assert not page.locator('.tip').is_visible()
