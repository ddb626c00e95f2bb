import { z } from 'zod'
import { ServiceError } from '../../errors.ts'
import type { KeystoneAccount } from '../../keystone/account.ts'
import { type JsonAnswer, parseAnswer, postJson, shown } from '../../keystone/json-exchange.ts'
import type { HttpClient } from '../../runtime/http-client.ts'
import type { Log } from '../../runtime/log.ts'
import type { ComputeService, VolumeEvent } from './compute-service.ts'

/**
 * OpenStack's compute service: `POST os-server-external-events`, which it answers as soon as it has passed the word on.
 * Only services and administrators may, so it is called with an account of our own.
 */

/** Since when it knows the event. */
const MICROVERSIONS: Record<VolumeEvent['name'], string> = {
  'volume-extended': '2.51',
  'volume-reimaged': '2.93',
}

/** One for each event: its own status is in there, and may be another than that of the answer. */
const Outcome = z.looseObject({ server_uuid: z.string().optional(), code: z.int().optional() })
const Outcomes = z.object({ events: z.array(Outcome) })

export function createNova(options: {
  http: HttpClient
  account: KeystoneAccount
  /** Instead of the one in the catalog: `http://host:8774/v2.1`. */
  url: string | null
  timeoutMs: number
  log: Log
}): ComputeService {
  const { http, account, timeoutMs, log } = options

  async function send(event: VolumeEvent, servers: readonly string[], requestId: string | null) {
    const { token, url: catalogUrl } = await account.enter('compute')
    const base = options.url ?? catalogUrl
    if (base === null) throw computeRefusal('the catalog names no endpoint of it')
    const version = MICROVERSIONS[event.name]
    const answer = await postJson(http, 'The compute service', {
      url: `${base.replace(/\/+$/, '')}/os-server-external-events`,
      headers: {
        'x-auth-token': token,
        'openstack-api-version': `compute ${version}`,
        'x-openstack-nova-api-version': version,
        ...(requestId === null ? {} : { 'x-openstack-request-id': requestId }),
      },
      timeoutMs,
      document: {
        events: servers.map((server) => ({ name: event.name, server_uuid: server, tag: event.volumeId })),
      },
    })
    return { answer, token }
  }

  return {
    notify: async (event, servers, requestId) => {
      let { answer, token } = await send(event, servers, requestId)
      if (answer.status === 401) {
        account.forget(token) // revoked before its time
        answer = (await send(event, servers, requestId)).answer
      }
      const outcomes = outcomesOf(answer)
      for (const outcome of outcomes) {
        if (outcome.code !== 200) log.warn({ event, outcome }, 'a server cannot be told of its volume')
      }
      if (outcomes.some(({ code }) => code === undefined)) throw computeRefusal(shown(answer))
    },
  }
}

function outcomesOf(answer: JsonAnswer): z.output<typeof Outcome>[] {
  const outcomes = answer.status === 200 || answer.status === 207 ? parseAnswer(Outcomes, answer) : null
  if (outcomes === null) throw computeRefusal(shown(answer))
  return outcomes.events
}

export function computeRefusal(reason: string): ServiceError {
  return new ServiceError('ComputeRefused', { reason })
}
