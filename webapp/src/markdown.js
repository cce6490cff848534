// As much of Markdown as the documents of this repository use. What is made are elements and texts, never HTML out of a text.

const FENCE = /^\s*```(\w*)\s*$/;
const HEADING = /^(#{1,4}) (.*)$/;
const ITEM = /^(\s*)([-*]|\d+\.) (.*)$/;
const RULE = /^\|?[\s:|-]+\|[\s:|-]*$/;
const INLINE = /(`+)(.+?)\1(?!`)|\*\*(.+?)\*\*|\[((?:[^[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)|<(https?:[^>]+)>/s;

/** Returns the elements of a document. `hrefOf` turns the address of a link into one to follow; null: it cannot be followed. */
export function elementsOf(markdown, hrefOf) {
  const lines = markdown.split('\n');
  const made = [];
  let at = 0;
  const take = (isPart) => {
    const start = at;
    while (at < lines.length && isPart(lines[at])) at += 1;
    return lines.slice(start, at);
  };
  while (at < lines.length) {
    const line = lines[at];
    const [, marks, title] = line.match(HEADING) ?? [];
    if (FENCE.test(line)) {
      at += 1;
      const code = take((each) => !FENCE.test(each));
      at += 1;
      made.push(codeBlock(code.join('\n')));
    } else if (marks) {
      at += 1;
      const heading = element(`h${marks.length}`, inline(title, hrefOf));
      heading.id = slug(heading.textContent);
      made.push(heading);
    } else if (line.startsWith('|') && RULE.test(lines[at + 1] ?? '')) {
      made.push(table(take((each) => each.startsWith('|')), hrefOf));
    } else if (ITEM.test(line)) {
      // An item goes on in lines that are indented.
      made.push(list(take((each) => ITEM.test(each) || /^\s+\S/.test(each)), hrefOf));
    } else if (line.trim() === '' || /^<!--.*-->$/.test(line)) {
      at += 1;
    } else {
      const paragraph = [line];
      at += 1;
      paragraph.push(...take((each) => each.trim() !== '' && ![FENCE, HEADING, ITEM].some((other) => other.test(each)) && !each.startsWith('|')));
      made.push(element('p', inline(paragraph.join('\n'), hrefOf)));
    }
  }
  return made;
}

/** The id of a heading, as GitHub makes it. */
function slug(text) {
  return text.toLowerCase().replaceAll(/[^\p{L}\p{N}\s_-]/gu, '').replaceAll(/\s/g, '-');
}

function codeBlock(text) {
  const block = element('pre', [element('code', [text])]);
  block.tabIndex = 0;
  block.setAttribute('role', 'group');
  block.setAttribute('aria-label', 'Code');
  return block;
}

function table([head, , ...rows], hrefOf) {
  // A bar within code, or after a backslash, divides nothing.
  const cells = (row) => row.replace(/^\|/, '').replace(/\|\s*$/, '').split(/(?<!\\)\|(?=(?:[^`]*`[^`]*`)*[^`]*$)/)
    .map((cell) => inline(cell.trim().replaceAll(String.raw`\|`, '|'), hrefOf));
  const heads = cells(head).map((parts) => {
    const cell = element(parts.length > 0 ? 'th' : 'td', parts);
    if (parts.length > 0) cell.scope = 'col';
    return cell;
  });
  const body = rows.map((row) => element('tr', cells(row).map((parts) => element('td', parts))));
  const made = element('table', [element('thead', [element('tr', heads)]), element('tbody', body)]);
  const box = element('div', [made]);
  box.className = 'wide';
  box.tabIndex = 0;
  box.setAttribute('role', 'group');
  box.setAttribute('aria-label', 'Table');
  return box;
}

function list(lines, hrefOf) {
  const indentOf = (line) => line.match(ITEM)?.[1].length;
  const own = indentOf(lines[0]);
  const items = [];
  for (const line of lines) {
    if (indentOf(line) === own) items.push([]);
    items.at(-1).push(line);
  }
  const made = element(/\d/.test(lines[0].match(ITEM)[2]) ? 'ol' : 'ul', items.map(([first, ...more]) => {
    const nested = more.findIndex((line) => ITEM.test(line));
    const text = [first.match(ITEM)[3], ...(nested === -1 ? more : more.slice(0, nested))].map((line) => line.trim()).join('\n');
    return element('li', [...inline(text, hrefOf), ...(nested === -1 ? [] : [list(more.slice(nested), hrefOf)])]);
  }));
  if (made.tagName === 'OL') made.start = Number.parseInt(lines[0].match(ITEM)[2], 10);
  return made;
}

function inline(text, hrefOf) {
  const made = [];
  let rest = text;
  for (let match = rest.match(INLINE); match; match = rest.match(INLINE)) {
    const [all, , code, strong, words, address, bare] = match;
    if (match.index > 0) made.push(rest.slice(0, match.index));
    if (code !== undefined) made.push(element('code', [code]));
    else if (strong !== undefined) made.push(element('strong', inline(strong, hrefOf)));
    else made.push(...link(words ?? bare, address ?? bare, hrefOf));
    rest = rest.slice(match.index + all.length);
  }
  if (rest) made.push(rest);
  return made;
}

function link(words, address, hrefOf) {
  const parts = inline(words, hrefOf);
  const href = hrefOf(address);
  if (href === null) return parts;
  const made = element('a', parts);
  made.href = href;
  return [made];
}

function element(tag, children) {
  const made = document.createElement(tag);
  made.append(...children);
  return made;
}
