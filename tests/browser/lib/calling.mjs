// A function as text for a page, called with arguments, its result as JSON: all three protocols carry text.

/** An expression whose value is a promise of JSON: `{ value }`, or `{ error }` with what it threw. */
export function callText(fn, args) {
  const value = `await (${fn})(...${JSON.stringify(args)})`;
  return `(async () => {
    try { return JSON.stringify({ value: ${value} }); } catch (error) { return JSON.stringify({ error: String(error) }); }
  })()`;
}

export function resultOf(text) {
  const { value, error } = JSON.parse(text);
  if (error) throw new Error(`in the page: ${error}`);
  return value;
}
