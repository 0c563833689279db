// Column names of a file that the user picked, read from its beginning, for the choice of columns. The server decides how it is read.

const HEAD_BYTES = 64 * 1024;

/** Column names, or none for formats that are not text. */
export async function columnNames(file) {
  const head = await file.slice(0, HEAD_BYTES).text();
  if (head.includes("\u0000")) return [];
  const first = head.replace(/^\uFEFF/, "").trimStart();
  if (first.startsWith("{") || first.startsWith("[")) return jsonFields(first);
  const line = first.split(/\r?\n/, 1)[0];
  const separator = ["\t", ";", "|", ","].find((candidate) => line.includes(candidate));
  return separator ? fieldsOf(line, separator) : [line.trim()].filter(Boolean);
}

function jsonFields(text) {
  const names = new Set();
  for (const line of text.split("\n").slice(0, 20)) {
    try {
      const row = JSON.parse(line.trim().replace(/^\[/, "").replace(/[\],]+$/, (end) => (end.startsWith("]") ? "" : end)).replace(/,$/, ""));
      // The values of an array have no names.
      if (!Array.isArray(row)) for (const name of Object.keys(row)) names.add(name);
    } catch {
      // A row over several lines, or one that is cut off: the names of the others are enough.
    }
  }
  return [...names];
}

function fieldsOf(line, separator) {
  const fields = [];
  let field = "";
  let isQuoted = false;
  for (const character of line) {
    if (character === '"') isQuoted = !isQuoted;
    else if (character === separator && !isQuoted) {
      fields.push(field.trim());
      field = "";
    } else field += character;
  }
  fields.push(field.trim());
  return fields.filter(Boolean);
}

/** A file with pasted rows; its name says the format. */
export function pastedFile(text) {
  const first = text.trimStart()[0];
  const isJson = first === "{" || first === "[";
  const isTabbed = text.split("\n", 1)[0].includes("\t");
  const name = isJson ? "pasted.jsonl" : isTabbed ? "pasted.tsv" : "pasted.csv";
  return new File([text.endsWith("\n") ? text : `${text}\n`], name, { type: "text/plain" });
}
