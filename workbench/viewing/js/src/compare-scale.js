// Where a share and its interval lie on an axis that starts at nothing. Pure: no document in here.
const ENDS = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1];

/** The end of an axis on which all of these shares fit; what is not known is left out. */
export function axisEnd(shares) {
  const most = Math.max(0, ...shares.filter((each) => each !== null && Number.isFinite(each)));
  return ENDS.find((end) => most <= end) ?? 1;
}

/** From where to where a range is drawn, in per cent of the axis; null where it is not known. */
export function span(low, high, end) {
  if (low === null || high === null || !(end > 0)) return null;
  const at = (value) => Math.min(100, Math.max(0, (100 * value) / end));
  return { left: at(low), width: Math.max(0, at(high) - at(low)) };
}

/** A share of the axis in words. */
export function percent(share) {
  return `${Number((100 * share).toPrecision(3))} %`;
}
