import type { Result } from '../control/methods.ts'
import { table, visible } from './table.ts'

export type Explanation = NonNullable<Result<'explain'>['explanation']>
type Work = NonNullable<Explanation['work']>

/** What a person reads who asks why: what it is, why, what goes on, what happened, what to do. */
export function tellStory(explanation: Explanation, nowMs: number): string {
  return [
    headline(explanation),
    ...(explanation.reason === null ? [] : [`Why: ${visible(explanation.reason)}`]),
    ...workLines(explanation, nowMs),
    ...section(
      'Attachments',
      explanation.attachments.map(({ id, status, instance_id, host, reason }) => [
        id,
        status,
        instance_id === null ? 'no server' : `server ${instance_id}`,
        host === null ? 'no host yet' : `on ${host}`,
        reason ?? '',
      ]),
    ),
    ...section(
      'Snapshots',
      explanation.snapshots.map(({ id, status, name }) => [id, status, name ?? '']),
    ),
    ...section(
      'Volumes',
      explanation.volumes.map(({ id, status, name }) => [id, status, name ?? '']),
    ),
    ...section(
      'Messages, newest first',
      explanation.messages.map(({ created_at, level, text, request_id }) => [
        created_at.slice(0, 19),
        level,
        text,
        request_id ?? '',
      ]),
    ),
    ...adviceLines(explanation),
  ].join('\n')
}

function headline({
  kind,
  id,
  name,
  project_id,
  size_gib,
  host,
  status,
  volume_id,
  created_at,
  updated_at,
}: Explanation) {
  const parts = [
    `${kind} ${id}${name === null ? '' : ` "${visible(name)}"`}: ${status} since ${(updated_at ?? created_at).slice(0, 19)} UTC`,
    [
      ...(size_gib === null ? [] : [`${size_gib} GiB`]),
      `project ${visible(project_id)}`,
      ...(kind === 'volume' || volume_id === null ? [] : [`of volume ${volume_id}`]),
      ...(host === null ? [] : [`on ${host}`]),
    ].join(', '),
  ]
  return parts.join('\n')
}

function workLines({ work, work_beside, volume_id }: Explanation, nowMs: number): string[] {
  return [
    work === null ? 'Work: none goes on or waits.' : `Work: ${describe(work, nowMs)}`,
    ...work_beside.map(
      (unit) =>
        `Also on this ${volume_id === null ? 'group' : 'volume'}, for ${unit.resource_id}: ${describe(unit, nowMs)}`,
    ),
  ]
}

function describe({ kind, step, attempt, last_error, due_at_ms }: Work, nowMs: number): string {
  const waitMs = due_at_ms - nowMs
  const when = waitMs > 0 ? `is tried again in ${Math.ceil(waitMs / 1000)} s` : 'is under way or waits for its turn'
  const error = last_error === null ? '' : `; the last attempt failed: ${visible(last_error)}`
  return `${kind}, step ${step}, attempt ${attempt}, ${when}${error}`
}

function section(title: string, rows: readonly (readonly string[])[]): string[] {
  if (rows.length === 0) return []
  return [
    `${title}:`,
    ...table(rows)
      .split('\n')
      .map((line) => `  ${line}`),
  ]
}

/** Statuses that end by themselves as long as work stands behind them. */
const BUSY: ReadonlySet<string> = new Set([
  'creating',
  'deleting',
  'downloading',
  'extending',
  'unmanaging',
  'updating',
  'restoring',
  'restoring-backup',
])
/** The same, of work that leaves what the volume or snapshot holds as it was. */
const BUSY_WITH_DATA: ReadonlySet<string> = new Set(['retyping', 'maintenance', 'backing-up', 'reverting', 'uploading'])

function groupAdvice(kind: 'group' | 'group snapshot', id: string, status: string): string[] {
  const type = kind === 'group' ? 'group' : 'group-snapshot'
  if (BUSY.has(status)) {
    return [
      `Nothing works on it: an administrator wrote this status. \`cinder reset-state --type ${type} --state error ${id}\` makes it deletable.`,
    ]
  }
  if (status !== 'error' && status !== 'error_deleting') return []
  const flag = kind === 'group' ? '--delete-volumes ' : ''
  return [`Once the cause is mended: \`cinder ${type}-delete ${flag}${id}\`, and what is in it goes with it.`]
}

function adviceLines({ kind, id, status, work, work_beside, attachments }: Explanation): string[] {
  const client = `openstack volume${kind === 'snapshot' ? ' snapshot' : ''}`
  const usable = `\`${client} set --state ${attachments.length > 0 ? 'in-use' : 'available'} ${id}\` makes it usable again`
  if (work !== null) {
    const tried = 'Nothing need be done: the work is repeated until it succeeds or is given up, also after a restart.'
    return work.last_error === null ? [tried] : [`${tried} Mend what the last attempt met, and the next one succeeds.`]
  }
  if (kind === 'attachment') return []
  if (kind === 'group' || kind === 'group snapshot') return groupAdvice(kind, id, status)
  if (BUSY.has(status) || BUSY_WITH_DATA.has(status)) {
    if (work_beside.length > 0) return [] // of the backup that is made, or of the volume that the snapshot goes with
    const way = BUSY_WITH_DATA.has(status) ? usable : `\`${client} set --state error ${id}\` makes it deletable`
    return [`Nothing works on it: an administrator wrote this status. ${way}.`]
  }
  if (status === 'error') {
    return [
      `If it was never available, it holds nothing: \`${client} delete ${id}\` removes it, then ask for it again.`,
      `If it was, and an administrator wrote this status or it could not be reverted, it has its data; ${usable}.`,
    ]
  }
  if (status === 'error_deleting') return [`Once the cause is mended: \`${client} delete --force ${id}\`.`]
  if (status === 'error_extending') return [`Its data and its old size are as they were; ${usable}.`]
  if (status === 'error_restoring') {
    return [
      `It holds a part of the backup; ${usable}, to restore into it again, or \`${client} delete ${id}\` removes it.`,
    ]
  }
  if (status === 'reserved' || status === 'attaching' || status === 'detaching') {
    return work_beside.length > 0
      ? []
      : [
          `It waits for the compute service. If that has given up: \`openstack --os-volume-api-version 3.27 volume attachment delete\` with the id of the attachment above.`,
        ]
  }
  return []
}
