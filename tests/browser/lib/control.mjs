// The control plane, spoken to as a backend does that has no gRPC: JSON over HTTP. A call costs no process.

/** Calls of ControlService at `address`: (method, request) => the answer, or throws with what the hub said. */
export function jsonControlAt(address) {
  return async (method, request) => {
    const answer = await fetch(`http://${address}/duelhub.v1.ControlService/${method}`, {
      method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(request),
      signal: AbortSignal.timeout(15_000),
    });
    const text = await answer.text();
    if (!answer.ok) throw new Error(`${method}: ${text}`);
    return JSON.parse(text);
  };
}
