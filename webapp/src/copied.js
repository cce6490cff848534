// A call as it is pasted into a shell: by curl, by grpcurl, by the client in PHP. A call is { method, request }.

const SERVICE = 'duelhub.v1.ControlService';

/** Returns the three lines of a call. `control` is the control plane's address. The token itself is never known here. */
export function copied(call, { control, tokenNeeded }) {
  return { curl: curl(call, control, tokenNeeded), grpcurl: grpcurl(call, control, tokenNeeded), php: php(call, control) };
}

function curl({ method, request }, control, tokenNeeded) {
  const token = tokenNeeded ? '-H "Authorization: Bearer $CONTROL_TOKEN" ' : '';
  const json = quoted(JSON.stringify(request));
  return `curl ${token}-H 'Content-Type: application/json' \\\n-d ${json} \\\nhttp://${control}/${SERVICE}/${method}`;
}

function grpcurl({ method, request }, control, tokenNeeded) {
  const token = tokenNeeded ? '-H "authorization: Bearer $CONTROL_TOKEN" ' : '';
  return `grpcurl -plaintext ${token}\\\n-d ${quoted(JSON.stringify(request))} \\\n${control} ${SERVICE}/${method}`;
}

/** For a shell: between single quotes nothing has a meaning but they themselves. */
function quoted(text) {
  return `'${text.replaceAll("'", String.raw`'\''`)}'`;
}

function php({ method, request }, control) {
  return `php <<'PHP'
<?php // from the top of a clone of duelhub
require 'clients/php/autoload.php';
$hub = new Duelhub\\Client('http://${control}', getenv('CONTROL_TOKEN') ?: '');
echo json_encode($hub->${PHP_CALLS[method](request)}), "\\n";
PHP`;
}

const PHP_CALLS = {
  OpenDuel: ({ duelId, participants, reopen }) =>
    `openDuel(${list([duelId, literal(participants.map(({ userId }) => userId)), reopen && 'reopen: true'])})`,
  IssueTicket: ({ duelId, userId }) => `issueTicket(${duelId}, ${userId})`,
  PushEvent: ({ duelId, type, ...event }) =>
    `pushEvent(${list([duelId, literal(event.payload), type && `type: ${literal(type)}`, views(event)])})`,
  CloseDuel: ({ duelId, status, lastEvent }) => {
    const last = lastEvent && `lastEvent: new Duelhub\\LastEvent(${list([literal(lastEvent.payload), views(lastEvent)])})`;
    return `closeDuel(${list([duelId, `Duelhub\\DuelStatus::${PHP_STATUSES[status]}`, last])})`;
  },
};

const PHP_STATUSES = { DUEL_STATUS_FINISHED: 'Finished', DUEL_STATUS_CANCELLED: 'Cancelled' };

function views({ views = [] }) {
  const rows = views.map(({ userId, payload }) => `${userId} => ${literal(payload)}`);
  return rows.length > 0 && `views: [${rows.join(', ')}]`;
}

function list(parts) {
  return parts.filter(Boolean).join(', ');
}

/** A value of JSON, as PHP writes it. An object without a key must not become an empty list. */
function literal(value) {
  if (Array.isArray(value)) return `[${value.map(literal).join(', ')}]`;
  if (typeof value === 'string') return phpText(value);
  if (value === null || typeof value !== 'object') return String(value);
  const rows = Object.entries(value).map(([key, each]) => `${phpText(key)} => ${literal(each)}`);
  // A key of digits alone becomes a number in PHP, and 0, 1, 2 then a list.
  return `${rows.length === 0 || '0' in value ? '(object) ' : ''}[${rows.join(', ')}]`;
}

/** In double quotes if there is a line break, which could end the shell's text as well. */
function phpText(text) {
  if (!/[\u0000-\u001f\u007f]/.test(text)) return `'${text.replaceAll(/[\\']/g, String.raw`\$&`)}'`;
  const escaped = text.replaceAll(/[\\"$]/g, String.raw`\$&`);
  return `"${escaped.replaceAll(/[\u0000-\u001f\u007f]/g, (c) => `\\x${c.charCodeAt(0).toString(16).padStart(2, '0')}`)}"`;
}
