// Stands for the game's own file of this name, of which the hook needs this much.

export const WS_STATUS = { OFFLINE: 'offline', CONNECTING: 'connecting', CONNECTED: 'connected', DISABLED: 'disabled' }
export const STATES = { FINISHED: 'finished' }
