for (const input of document.querySelectorAll('.pair input')) {
  const move = () => input.parentElement.style.setProperty('--at', input.value + '%');
  input.addEventListener('input', move);
  move();
}
const value = (row, i) => {
  const text = row.cells[i].dataset.value;
  return text === undefined ? row.cells[i].textContent.trim() : text === '' ? NaN : Number(text);
};
for (const table of document.querySelectorAll('table.sortable')) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, i) => head.querySelector('button').addEventListener('click', () => {
    const up = head.getAttribute('aria-sort') !== 'ascending';
    heads.forEach(h => h.removeAttribute('aria-sort'));
    head.setAttribute('aria-sort', up ? 'ascending' : 'descending');
    const rows = [...table.tBodies[0].rows];
    rows.sort((a, b) => {
      const [x, y] = [value(a, i), value(b, i)];
      if (typeof x === 'string') return up ? x.localeCompare(y) : y.localeCompare(x);
      if (isNaN(x) || isNaN(y)) return isNaN(x) - isNaN(y);
      return up ? x - y : y - x;
    });
    table.tBodies[0].append(...rows);
  }));
}
