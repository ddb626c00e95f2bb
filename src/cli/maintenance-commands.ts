import type { ControlClient } from '../control/client.ts'
import type { Result } from '../control/methods.ts'
import { type Command, type CommandCall, type CommandPorts, EXIT } from './command.ts'
import { askNode } from './node-access.ts'
import { formatBytes, table } from './table.ts'

const POLL_INTERVAL_MS = 500
/** Polls between two lines of progress, where there is no terminal to draw on. */
const POLLS_PER_LINE = 10
const CLEAR_LINE = '\r\u001b[K'

/** What looks after the store: the audit, and the scrub that goes on in the background. */
export function maintenanceCommands(ports: CommandPorts): Command[] {
  return [
    {
      name: 'cluster audit',
      summary: 'Prove checksums, references and accounts of the whole store, beside what else it does.',
      description:
        `Exits with ${EXIT.DATA_UNSOUND} when the store is not sound, after --repair too if something could not be mended: a block\n` +
        'that has rotten in all copies that there are. It is named with VDI, offset and length, to be written again from a backup.',
      options: [
        {
          flag: 'repair',
          meaning:
            'Read from other nodes what one cannot read, set wrong accounts right, remove what belongs to nobody.',
        },
      ],
      run: async (call) => {
        const repair = call.options.repair !== undefined
        const audit = await askNode(ports, call, (node) =>
          withProgress(ports, call, node, node.call('audit', { repair })),
        )
        call.print(audit, () => describeAudit(audit))
        return audit.sound ? EXIT.OK : EXIT.DATA_UNSOUND
      },
    },
    scrubCommand(ports, 'scrub_status', 'cluster scrub status', 'Say how far the scrub is, and what it has found.'),
    scrubCommand(
      ports,
      'scrub_start',
      'cluster scrub start',
      'Go on with the scrub after a pause, or start its next round now.',
    ),
    scrubCommand(ports, 'scrub_pause', 'cluster scrub pause', 'Keep the scrub where it is until it is started again.'),
  ]
}

function scrubCommand(
  ports: CommandPorts,
  method: 'scrub_status' | 'scrub_start' | 'scrub_pause',
  name: string,
  summary: string,
): Command {
  return {
    name,
    summary,
    run: async (call) => {
      const scrub = await askNode(ports, call, (node) => node.call(method, {}))
      call.print(scrub, () => describeScrub(scrub))
      return scrub.findings + scrub.last_round_findings > 0 ? EXIT.DATA_UNSOUND : EXIT.OK
    },
  }
}

/** Says on standard error how far an audit is, until it ends. */
async function withProgress<T>(
  { clock }: CommandPorts,
  call: CommandCall,
  node: ControlClient,
  work: Promise<T>,
): Promise<T> {
  const { io, json } = call
  let isDone = false
  const done = work.then(
    () => {
      isDone = true
    },
    () => {
      isDone = true
    },
  )
  for (let polls = 1; ; polls++) {
    await new Promise<void>((resolve) => {
      const timer = clock.timer(POLL_INTERVAL_MS, resolve)
      void done.then(() => {
        timer.cancel()
        resolve()
      })
    })
    if (isDone) break
    const progress = await node.call('audit_progress', {})
    if (!progress.is_running) continue
    const text = `audit: ${progress.phase} ${progress.done} of ${progress.total}`
    if (io.terminal && !json) io.terminal.draw(CLEAR_LINE + text)
    else if (polls % POLLS_PER_LINE === 0) io.err(json ? JSON.stringify({ progress }) : text)
  }
  if (!json) io.terminal?.draw(CLEAR_LINE)
  return work
}

function describeAudit(audit: Result<'audit'>): string {
  const checked = Object.entries(audit.checked).map(([name, count]) => `${count} ${name}`)
  const findings = audit.findings.map(({ kind, detail, where, repaired }) => [
    kind,
    where ? describeDamage(where) : '',
    repaired ? `${detail} (repaired)` : detail,
  ])
  const more = audit.findings_total - audit.findings.length
  return [
    audit.sound ? 'The store is sound.' : 'The store is NOT sound.',
    `Checked: ${checked.join(', ')}.`,
    ...(findings.length > 0 ? ['', table(findings)] : []),
    ...(more > 0 ? [`… and ${more} more.`] : []),
  ].join('\n')
}

function describeScrub(scrub: Result<'scrub_status'>): string {
  const facts = table([
    ['state', scrub.state],
    ['rate', `${formatBytes(scrub.bytes_per_second)} per second`],
    ['round', String(scrub.round)],
    ['objects', `${scrub.objects_done} of ${scrub.objects_total}`],
    ['read', formatBytes(scrub.bytes_read)],
    ['findings', String(scrub.findings)],
    ['repaired', String(scrub.repaired)],
    ['last round', scrub.last_round_at ? `${scrub.last_round_at}, ${scrub.last_round_findings} findings` : 'none yet'],
  ])
  return [facts, ...(scrub.damage.length > 0 ? ['', ...scrub.damage.map(describeDamage)] : [])].join('\n')
}

type Damage = Result<'scrub_status'>['damage'][number]

const describeDamage = ({ vdi, snapshot, offset_bytes, length_bytes }: Damage): string =>
  `${vdi}${snapshot && `@${snapshot}`} offset ${offset_bytes} length ${length_bytes}`
