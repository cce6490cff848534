// What a ticket says, for those who hold it.

export function claimsOf(ticket) {
  return JSON.parse(Buffer.from(ticket.split('.')[1], 'base64url'));
}
