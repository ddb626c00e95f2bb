import path from 'node:path'
import { parseArgs } from 'node:util'
import { FAULT_KINDS, type FaultKind } from './faults.ts'

export interface TortureOptions {
  minutes: number
  nodes: number
  group: 'corosync' | 'etcd'
  seed: number
  /** Each of these once, in this order, instead of any for some minutes. */
  faults: FaultKind[] | null
  holdSeconds: number
  gateways: number
  /** QEMU writes as well, by the Sheepdog protocol. */
  withQemu: boolean
  /** Where the logs of all nodes go at the end; null for nowhere. */
  logs: string | null
  isJson: boolean
}

export const HELP = `Usage: npm run torture -- [OPTIONS]

Starts several nodes of Collie on hosts of their own (network namespaces; it needs root), breaks one after another of them while a client
writes, and finds out whether everything is there that was acknowledged. Ends with 1 when something is not.

  --minutes N      How long faults go on; 10 by default.
  --nodes N        Nodes with a store, 3 to 5; 3 by default.
  --gateways N     Nodes that are a gateway and nothing else; 1 by default.
  --group NAME     How they find each other: corosync (the default) or etcd.
  --faults A,B     These, once and in this order, instead of any: ${FAULT_KINDS.join(', ')}.
  --qemu           QEMU 5.2 writes as well, by the Sheepdog protocol, on the last gateway; test/tools/qemu52.sh builds it.
  --hold SECONDS   How long a fault lasts once the client goes on; 5 by default.
  --seed N         What is done to whom follows from it; when it happens does not.
  --logs DIR       Leave the logs of all nodes there.
  --json           Print the result as JSON. Progress goes to standard error.
  --help           Print this.
`

/** Throws a TypeError that says what is wrong; null when help was asked for. */
export function readOptions(argv: readonly string[]): TortureOptions | null {
  const { values } = parseArgs({
    args: [...argv],
    options: {
      minutes: { type: 'string', default: '10' },
      nodes: { type: 'string', default: '3' },
      group: { type: 'string', default: 'corosync' },
      faults: { type: 'string' },
      gateways: { type: 'string', default: '1' },
      qemu: { type: 'boolean', default: false },
      logs: { type: 'string' },
      hold: { type: 'string', default: '5' },
      seed: { type: 'string', default: String(Date.now() % 1_000_000) },
      json: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  })
  if (values.help) return null
  const { group } = values
  if (group !== 'corosync' && group !== 'etcd') throw new TypeError(`--group is corosync or etcd, not ${group}`)
  if (values.qemu && values.gateways === '0') throw new TypeError('--qemu needs a gateway: give --gateways 1 or more')
  return {
    minutes: numberOf('--minutes', values.minutes, 0, 10_000),
    nodes: numberOf('--nodes', values.nodes, 3, 5),
    group,
    seed: numberOf('--seed', values.seed, 0, 2 ** 32),
    faults: values.faults?.split(',').map(faultOf) ?? null,
    gateways: numberOf('--gateways', values.gateways, 0, 3),
    withQemu: values.qemu,
    logs: values.logs === undefined ? null : path.resolve(values.logs),
    holdSeconds: numberOf('--hold', values.hold, 0, 3600),
    isJson: values.json,
  }
}

function numberOf(flag: string, text: string, min: number, max: number): number {
  const number = Number(text)
  if (text !== '' && number >= min && number <= max) return number
  throw new TypeError(`${flag} is a number from ${min} to ${max}, not ${text}`)
}

function faultOf(name: string): FaultKind {
  const kind = FAULT_KINDS.find((one) => one === name)
  if (!kind) throw new TypeError(`there is no fault ${name}; there are ${FAULT_KINDS.join(', ')}`)
  return kind
}
