// The realtime of the game's duel page, on @duelhub/client. It takes and returns what the game's own hook does, so the page stays as it is.

import { useCallback, useRef, useState } from 'react'
import { useDuel } from '@duelhub/client/react'

import { STATES, WS_STATUS } from './constants'

// What the game's API says when there will never be a ticket.
const FINAL_ERRORS = ['Дуэль уже завершена', 'Доступ запрещён', 'Не авторизован']

const STATUS_OF = {
  connecting: WS_STATUS.CONNECTING,
  online: WS_STATUS.CONNECTED,
  waiting: WS_STATUS.CONNECTING,
  closed: WS_STATUS.OFFLINE,
}

export function useDuelRealtime({ duelId, wsConfigured, wsBaseUrl, duelStateRef, checkDuelStatusRef, getDuelWsTicket }) {
  const [stoppedDuel, setStoppedDuel] = useState(null)
  const failures = useRef(0)
  const available = Boolean(wsConfigured && wsBaseUrl)
  const check = () => checkDuelStatusRef.current?.(duelId)

  const { state, reconnect } = useDuel({
    url: wsBaseUrl,
    duelId: Number(duelId) || undefined,
    enabled: Boolean(available && duelId && stoppedDuel !== duelId && duelStateRef.current !== STATES.FINISHED),
    ticket: () => fetchTicket(getDuelWsTicket, duelId),
    onConnected: () => {
      failures.current = 0
      check()
    },
    onEvent: ({ type }) => type === 'duel_update' && check(),
    onDuelClosed: check,
  })

  // The page shows how often it was tried.
  const last = useRef(state)
  if (last.current !== state && state.name === 'waiting') failures.current += 1
  last.current = state

  const closeDuelSocket = useCallback((preventReconnect = true) => preventReconnect && setStoppedDuel(duelId), [duelId])
  const handleRealtimeRetry = useCallback(() => {
    setStoppedDuel(null)
    reconnect()
  }, [reconnect])

  return {
    wsConnected: state.name === 'online',
    wsConnectionState: available ? STATUS_OF[state.name] : WS_STATUS.DISABLED,
    wsRetrying: state.name === 'connecting' && failures.current > 0,
    wsReconnectAttempt: failures.current,
    closeDuelSocket,
    handleRealtimeRetry,
  }
}

async function fetchTicket(getDuelWsTicket, duelId) {
  try {
    const answer = await getDuelWsTicket(duelId)
    if (answer.success && answer.data?.ticket) return answer.data.ticket
    throw new Error(answer.error ?? 'no ticket')
  } catch (error) {
    const text = String(error?.message ?? '')
    throw Object.assign(new Error(text), {
      final: FINAL_ERRORS.some((final) => text.includes(final)),
      ...(text.includes('Дуэль уже завершена') && { code: 'duel_closed' }),
    })
  }
}
