// Status of a job.

const ACTIVE = ["queued", "running", "paused"];

export function isActive({ status }) {
  return ACTIVE.includes(status);
}

/** The status, and the requested action that has no effect yet. */
export function statusText({ status, requested_action: requested }) {
  return requested ? `${status}, ${requested} requested` : status;
}
