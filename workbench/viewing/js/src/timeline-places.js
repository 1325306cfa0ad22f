// Where marks lie on an axis. Pure: no document in here.
const EDGE = 12;

/** The x of each moment, left to right over `width`; evenly spaced if asked, or if all are one moment. */
export function places(times, width, even) {
  const first = times[0];
  const span = times[times.length - 1] - first;
  const inner = Math.max(1, width - 2 * EDGE);
  const last = Math.max(1, times.length - 1);
  return times.map((time, at) => EDGE + inner * (even || span <= 0 ? at / last : (time - first) / span));
}

/** The lane of each x, so that marks of a lane are `apart`; the topmost takes what fits nowhere. */
export function lanes(xs, apart, most) {
  const ends = [];
  return xs.map((x) => {
    let lane = ends.findIndex((end) => x - end >= apart);
    if (lane < 0) lane = ends.length < most ? ends.length : most - 1;
    ends[lane] = x;
    return lane;
  });
}
