'use strict';
// Figures open in their full size.
const dialog = document.querySelector('dialog');
document.querySelectorAll('.zoom').forEach((button) => {
  button.addEventListener('click', () => {
    const image = button.querySelector('img');
    const large = dialog.querySelector('img');
    large.src = image.currentSrc;
    large.alt = image.alt;
    dialog.showModal();
  });
});
dialog.querySelector('button').addEventListener('click', () => dialog.close());

// The map: pictures on hover, touch and arrow keys; zoom by buttons, + and -.
document.querySelectorAll('.map').forEach((map) => {
  const data = JSON.parse(map.querySelector('script').textContent);
  const svg = map.querySelector('svg');
  const tip = map.querySelector('.tip');
  const live = map.querySelector('[aria-live]');
  const dots = [...svg.querySelectorAll('.dot')];
  let current = -1;
  let view = [-0.03, -0.03, 1.06, 1.06];

  function show(index, speak) {
    if (current >= 0) dots[current].classList.remove('on');
    current = index;
    tip.hidden = index < 0;
    if (index < 0) return;
    const dot = dots[index];
    dot.classList.add('on');
    const column = index % data.columns;
    const row = Math.floor(index / data.columns);
    const thumb = tip.querySelector('.thumb');
    thumb.style.backgroundImage = `url(${map.querySelector('img.sprite').src})`;
    thumb.style.backgroundSize = `${data.columns * 96}px ${data.rows * 96}px`;
    thumb.style.backgroundPosition = `${-column * 96}px ${-row * 96}px`;
    tip.querySelector('.name').textContent = `${data.groups[index]}: ${data.names[index]}`;
    const point = dot.getBoundingClientRect();
    const frame = map.getBoundingClientRect();
    const left = Math.min(point.right - frame.left + 8, frame.width - tip.offsetWidth - 4);
    tip.style.left = `${Math.max(0, left)}px`;
    tip.style.top = `${Math.max(0, point.top - frame.top - tip.offsetHeight - 8)}px`;
    if (speak) live.textContent = `${index + 1} of ${dots.length}, ${data.groups[index]}, ${data.names[index]}`;
  }

  function zoom(factor) {
    const middle = [view[0] + view[2] / 2, view[1] + view[3] / 2];
    const [x, y] = current < 0 ? middle : dots[current].dataset.place.split(' ').map(Number);
    const size = Math.min(1.06, view[2] / factor);
    view = size === 1.06 ? [-0.03, -0.03, 1.06, 1.06] : [x - size / 2, y - size / 2, size, size];
    svg.setAttribute('viewBox', view.join(' '));
    const scale = 0.009 * Math.sqrt(size);
    dots.forEach((dot) => dot.setAttribute('transform', `translate(${dot.dataset.place}) scale(${scale})`));
    if (current >= 0) show(current, false);
  }

  svg.addEventListener('pointerover', (event) => {
    const index = dots.indexOf(event.target);
    if (index >= 0) show(index, false);
  });
  svg.addEventListener('keydown', (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (step) show((current + step + dots.length) % dots.length, true);
    else if (event.key === 'Escape') show(-1, false);
    else if (event.key === '+') zoom(1.5);
    else if (event.key === '-') zoom(1 / 1.5);
    else return;
    event.preventDefault();
  });
  map.querySelector('.in').addEventListener('click', () => zoom(1.5));
  map.querySelector('.out').addEventListener('click', () => zoom(1 / 1.5));
});

// A click on a column's name sorts by it, another one the other way round.
for (const button of document.querySelectorAll('.sort')) {
  button.addEventListener('click', () => {
    const head = button.closest('th'), body = head.closest('table').tBodies[0];
    const column = head.cellIndex, down = head.getAttribute('aria-sort') === 'ascending';
    const text = row => row.cells[column].textContent;
    const number = row => text(row).trim() === '' ? NaN : Number(text(row));
    const compare = (a, b) => number(a) - number(b)
      || text(a).localeCompare(text(b), undefined, {numeric: true});
    const rows = [...body.rows].sort(compare);
    body.append(...(down ? rows.reverse() : rows));
    for (const other of head.parentNode.cells) other.removeAttribute('aria-sort');
    head.setAttribute('aria-sort', down ? 'descending' : 'ascending');
  });
}
