import { z } from 'zod'
import { ServiceError } from '../../errors.ts'
import type { KeystoneAccount } from '../../keystone/account.ts'
import { getJson, type JsonAnswer, parseAnswer, postJson, putJson, shown } from '../../keystone/json-exchange.ts'
import type { HttpClient } from '../../runtime/http-client.ts'
import type { Log } from '../../runtime/log.ts'
import type { ComputeService, VolumeEvent } from './compute-service.ts'

/**
 * OpenStack's compute service: `POST os-server-external-events`, `PUT servers/…/os-volume_attachments/…` to swap volumes, and `GET` of
 * the same. It answers the first two as soon as it has passed the word on. Only services and administrators may, so it is called with an account of our
 * own.
 */

/** Since when it knows the event. */
const MICROVERSIONS: Record<VolumeEvent['name'], string> = {
  'volume-extended': '2.51',
  'volume-reimaged': '2.93',
}
/** It was always there. */
const SWAP_MICROVERSION = '2.1'
/** Since when it tells of the attachment. */
const ATTACHMENT_MICROVERSION = '2.89'

/** One for each event: its own status is in there, and may be another than that of the answer. */
const Outcome = z.looseObject({ server_uuid: z.string().optional(), code: z.int().optional() })
const Outcomes = z.object({ events: z.array(Outcome) })

const Held = z.object({ volumeAttachment: z.looseObject({ attachment_id: z.string() }) })

export function createNova(options: {
  http: HttpClient
  account: KeystoneAccount
  /** Instead of the one in the catalog: `http://host:8774/v2.1`. */
  url: string | null
  timeoutMs: number
  log: Log
}): ComputeService {
  const { http, account, timeoutMs, log } = options

  interface Call {
    path: string
    /** The least microversion that knows what is asked for. */
    version: string
    requestId: string | null
    document: unknown
  }

  async function sendOnce(by: typeof postJson, { path, version, requestId, document }: Call) {
    const { token, url: catalogUrl } = await account.enter('compute')
    const base = options.url ?? catalogUrl
    if (base === null) throw computeRefusal('the catalog names no endpoint of it')
    const answer = await by(http, 'The compute service', {
      url: `${base.replace(/\/+$/, '')}/${path}`,
      headers: {
        'x-auth-token': token,
        'openstack-api-version': `compute ${version}`,
        'x-openstack-nova-api-version': version,
        ...(requestId === null ? {} : { 'x-openstack-request-id': requestId }),
      },
      timeoutMs,
      document,
    })
    return { answer, token }
  }

  async function send(by: typeof postJson, call: Call): Promise<JsonAnswer> {
    const { answer, token } = await sendOnce(by, call)
    if (answer.status !== 401) return answer
    account.forget(token) // revoked before its time
    return (await sendOnce(by, call)).answer
  }

  return {
    notify: async (event, servers, requestId) => {
      const events = servers.map((server) => ({ name: event.name, server_uuid: server, tag: event.volumeId }))
      const version = MICROVERSIONS[event.name]
      const call = { path: 'os-server-external-events', version, requestId, document: { events } }
      const answer = await send(postJson, call)
      const outcomes = outcomesOf(answer)
      for (const outcome of outcomes) {
        if (outcome.code !== 200) log.warn({ event, outcome }, 'a server cannot be told of its volume')
      }
      if (outcomes.some(({ code }) => code === undefined)) throw computeRefusal(shown(answer))
    },
    swap: async ({ oldId, newId }, server, requestId) => {
      const path = `servers/${server}/os-volume_attachments/${oldId}`
      const document = { volumeAttachment: { volumeId: newId } }
      const answer = await send(putJson, { path, version: SWAP_MICROVERSION, requestId, document })
      if (answer.status !== 202) throw computeRefusal(shown(answer))
    },
    attachmentOf: async (volumeId, server, requestId) => {
      const path = `servers/${server}/os-volume_attachments/${volumeId}`
      const call = { path, version: ATTACHMENT_MICROVERSION, requestId, document: null }
      const answer = await send((http, who, { document: _, ...request }) => getJson(http, who, request), call)
      if (answer.status === 404) return null
      const held = answer.status === 200 ? parseAnswer(Held, answer) : null
      if (held === null) throw computeRefusal(shown(answer))
      return held.volumeAttachment.attachment_id
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
