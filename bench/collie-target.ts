import { type ChildProcess, spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Result } from '../src/control/methods.ts'
import { systemNetwork } from '../src/runtime/network.ts'
import { VdiClient } from '../src/vdi/client.ts'
import { hashExportName } from '../src/vdi/export-name.ts'
import { createSocketTransport } from '../src/vdi/socket-transport.ts'
import { Collie, freePort, MAIN, runCollie } from '../test/tools/collie.ts'
import { fio } from './fio.ts'

/** The journal that a store has by default; tests have smaller ones. */
const JOURNAL = '--journal-size-mib=128'

/** Collie as it is built, with the journal that it has by default, with one VDI and a right to reach it. */
export interface CollieUnderTest {
  vdis: VdiClient
  /** Its processes that have stores, in the order of the nodes. */
  pids: readonly number[]
  /** Of the node that clients come to. */
  dataDir: string
  /** Makes a VDI and returns where it is exported. */
  exportVdi(name: string, sizeBytes: number): Promise<string>
  /** Where an existing working VDI is exported. */
  exportVid(vid: number): Promise<string>
  stop(): Promise<void>
}

export async function startCollie(...flags: string[]): Promise<CollieUnderTest> {
  const collie = await Collie.create('--auth=noauth', JOURNAL, ...flags)
  await collie.start()
  const { pid, addresses } = collie.info
  return underTest(collie.dataDir, addresses.nbd_socket!, [pid], () => collie.dispose())
}

/** `nodes` of them as one store, with as many copies, all on this host: `collie dev-cluster`. Clients come to the first one. */
export async function startCluster(nodes: number, ...flags: string[]): Promise<CollieUnderTest> {
  const directory = mkdtempSync(path.join(tmpdir(), 'cluster-bench-'))
  const dataDir = path.join(directory, 'dev')
  const [api, sheep, nbd] = [await freePort(), await freePort(2000, 5000), await freePort(5000, 8000)]
  const addresses = [`--listen=127.0.0.1:${api}`, `--sheep-listen=127.0.0.1:${sheep}`, `--nbd-listen=127.0.0.1:${nbd}`]
  const args = ['dev-cluster', String(nodes), '--json', `--data-dir=${dataDir}`, '--auth=noauth', '--log-level=error']
  const command = spawn(process.execPath, [MAIN, ...args, JOURNAL, ...addresses, ...flags], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const stop = async () => {
    const ended = once(command, 'exit')
    if (command.kill('SIGINT')) await ended
    rmSync(directory, { recursive: true })
  }
  const [first] = await shownBy(command)
  while (!(await isWhole(first!.data_dir, nodes))) await sleep(200)
  return underTest(first!.data_dir, first!.addresses.nbd_socket!, childrenOf(command.pid!), stop)
}

interface ShownNode {
  data_dir: string
  addresses: Record<string, string>
}

async function shownBy(command: ChildProcess): Promise<ShownNode[]> {
  let printed = ''
  for await (const chunk of command.stdout!) {
    printed += String(chunk)
    if (printed.endsWith('\n}\n')) return (JSON.parse(printed) as { nodes: ShownNode[] }).nodes
  }
  throw new Error(`collie dev-cluster ended: ${printed}`)
}

/** Whether all nodes are in the view, and all that there is has been brought to them. */
async function isWhole(dataDir: string, count: number): Promise<boolean> {
  const { code, out } = await runCollie('cluster', 'status', '--json', `--data-dir=${dataDir}`)
  if (code !== 0) return false
  const { nodes, is_acting, families_to_bring_home } = JSON.parse(out) as Result<'cluster_status'>
  return (
    is_acting &&
    nodes.length === count &&
    nodes.filter(({ is_voter }) => is_voter).length >= Math.min(3, count) &&
    families_to_bring_home === 0
  )
}

const childrenOf = (pid: number): number[] =>
  readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ').map(Number)

function underTest(
  dataDir: string,
  nbdSocket: string,
  pids: readonly number[],
  stop: () => Promise<unknown>,
): CollieUnderTest {
  const transport = createSocketTransport({ network: systemNetwork, address: path.join(dataDir, 'sock') })
  const vdis = new VdiClient(transport)
  const exportVid = async (vid: number) => {
    const name = randomUUID()
    await vdis.putExport({ attachmentId: randomUUID(), nameHash: hashExportName(name), vid, readOnly: false })
    return `nbd+unix:///${name}?socket=${nbdSocket}`
  }
  return {
    vdis,
    pids,
    dataDir,
    exportVid,
    exportVdi: async (name, sizeBytes) => exportVid(await vdis.create(name, sizeBytes)),
    stop: async () => {
      transport.close()
      await stop()
    },
  }
}

/** Writes every byte of an export once, so that reads find blocks and not holes. */
export async function fill(uri: string): Promise<void> {
  await fio(uri, '--rw=write', '--bs=1m', '--iodepth=4')
}
