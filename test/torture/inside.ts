import type { NetworkHost } from '../tools/host-network.ts'
import type { TortureOptions } from './options.ts'
import { describe } from './report.ts'
import { torture } from './torture.ts'

/** The network that main.ts has made; this process is on the host `client`. */
export interface Place {
  directory: string
  switchNamespace: string
  client: NetworkHost
  hosts: NetworkHost[]
  /** So many of the last hosts have no store. */
  gateways: number
}

const [place, options] = process.argv.slice(2).map((text) => JSON.parse(text)) as [Place, TortureOptions]
const startedAt = Date.now()
const say = (line: string) => {
  process.stderr.write(`${((Date.now() - startedAt) / 1000).toFixed(1).padStart(7)}  ${line}\n`)
}
const report = await torture(place, options, say)
const { user, system } = process.cpuUsage()
say(`the client took ${((user + system) / 1e6).toFixed(1)} s of processor`)
process.stdout.write(options.isJson ? `${JSON.stringify(report, null, 2)}\n` : `${describe(report)}\n`)
process.exit(report.findings.length === 0 ? 0 : 1)
