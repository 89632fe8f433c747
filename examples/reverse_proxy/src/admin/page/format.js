// Numbers as people read them.

export const whole = n => Math.round(n).toLocaleString("en");

/* Three digits, or two where they suffice, in the unit of `most`. */
export function short(n, most = n) {
  if (most >= 1e6) return n && +(n / 1e6).toPrecision(3) + "M";
  if (most >= 1e4) return n && +(n / 1e3).toPrecision(3) + "k";
  return n < 10 ? String(+n.toPrecision(2)) : whole(n);
}

export function bytes(n) {
  let unit = 0;
  for (; n >= 1024 && unit < 3; unit++) n /= 1024;
  return (unit && n < 100 ? +n.toFixed(1) : whole(n)) + " " + ["B", "KiB", "MiB", "GiB"][unit];
}

/* Almost all is not all, and a few are not none. */
export function percent(n) {
  if (n >= 99 && n < 100) return (Math.floor(n * 100) / 100).toFixed(2) + " %";
  return (n > 0 && n < 1 ? "< 1" : whole(n)) + " %";
}

export function time(ms) {
  if (ms >= 1e3) return +(ms / 1e3).toPrecision(3) + " s";
  return (ms < 10 ? +ms.toPrecision(2) : Math.round(ms)) + " ms";
}

export const count = (n, one, many) => whole(n) + " " + (n === 1 ? one : many);
