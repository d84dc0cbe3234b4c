// How numbers, times and node IDs are written: as the command line writes them (cli/words.py).

export const NOTHING = "–";

export function shortId(node) {
  return node.length > 8 ? `${node.slice(0, 4)}-${node.slice(4, 8)}` : node;
}

// As Python rounds: the exact value of the float, and a tie, which only few binary digits can make, to the even digit.
function fixed(value, digits) {
  if (!Number.isInteger(value * 2 ** (digits + 1))) return value.toFixed(digits);
  const shape = { minimumFractionDigits: digits, maximumFractionDigits: digits, useGrouping: false };
  return value.toLocaleString("en", { ...shape, roundingMode: "halfEven" });
}

export function number(value, digits = 3) {
  if (value === null || value === undefined) return NOTHING;
  if (value !== 0 && Math.abs(value) < 10 ** -digits) return value.toExponential(1).replace(/([+-])(\d)$/, "$10$2");
  return fixed(value, digits);
}

export function whole(value) {
  return value === null || value === undefined ? NOTHING : value.toLocaleString("en");
}

export function percent(part) {
  return part === null || part === undefined ? NOTHING : `${fixed(part * 100, 1)} %`;
}

export function size(bytes) {
  if (bytes === null || bytes === undefined) return NOTHING;
  let value = bytes;
  for (const unit of ["B", "kB", "MB", "GB"]) {
    if (value < 1000) return `${fixed(value, unit === "B" || value >= 100 ? 0 : 1)} ${unit}`;
    value /= 1000;
  }
  return `${fixed(value, 1)} TB`;
}

export function seconds(value) {
  if (value === null || value === undefined) return NOTHING;
  return value < 10 ? `${fixed(value, 1)} s` : `${fixed(value, 0)} s`;
}

export function duration(value) {
  const all = Math.floor(value);
  if (all < 60) return seconds(value);
  if (all < 3600) return `${Math.floor(all / 60)} min ${all % 60} s`;
  if (all < 86400) return `${Math.floor(all / 3600)} h ${Math.floor((all % 3600) / 60)} min`;
  return `${Math.floor(all / 86400)} d ${Math.floor((all % 86400) / 3600)} h`;
}

export function clock(time) {
  const then = new Date(time * 1000);
  const day = then.toDateString() === new Date().toDateString() ? "" : `${then.toLocaleDateString("en-CA")} `;
  return day + then.toLocaleTimeString("en-GB");
}

// What people call a node.
export function title(member) {
  return member.name || shortId(member.node);
}
