import { type ChildProcess, fork } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { BREAKS } from '../test/sheep/clustered/broken-rules.ts'
import { ClusterModel, type SeedReport, WHOLE_SEED } from '../test/sheep/clustered/cluster-model.ts'

const USAGE = `npm run sim -- [options]

Runs whole nodes of a cluster in virtual time, with clients and faults, a seed at a time (test/sheep/clustered/cluster-model.ts).

  --seeds N        how many (100)
  --first S        the first one (1)
  --operations N   answered requests of clients in a seed, at least (${WHOLE_SEED.operations})
  --faults N       faults in a seed, at least (${WHOLE_SEED.faults})
  --jobs N         processes (1)
  --break RULE     breaks a rule on purpose, and stops at the first seed that finds it, which is then no failure but what was asked for:
                   ${Object.keys(BREAKS).join(', ')}
  --json           the sums as one JSON object, and nothing else, on the standard output
  --help
`

interface Task {
  seed: number
  operations: number
  faults: number
}

type Outcome = { seed: number; report: SeedReport } | { seed: number; failure: string }

const PROGRESS_MS = 10_000

/** Seeds run in processes of their own: one that a seed brings down is followed by another. */
class SeedRun {
  readonly failures: { seed: number; failure: string }[] = []
  readonly sums: Record<string, number> = {}
  done = 0
  readonly #first: number
  readonly #seeds: number
  readonly #task: Omit<Task, 'seed'>
  readonly #broken: string | undefined
  #next: number

  constructor({
    first,
    seeds,
    broken,
    ...task
  }: Omit<Task, 'seed'> & { first: number; seeds: number; broken?: string | undefined }) {
    this.#broken = broken
    this.#first = first
    this.#seeds = seeds
    this.#task = task
    this.#next = first
  }

  async run(jobs: number): Promise<void> {
    await Promise.all(Array.from({ length: jobs }, () => this.#work()))
  }

  get left(): number {
    return this.#seeds - this.done
  }

  async #work(): Promise<void> {
    let child: ChildProcess | null = null
    for (let seed = this.#take(); seed !== null; seed = this.#take()) {
      if (!child?.connected)
        child = fork(fileURLToPath(import.meta.url), [], {
          env: { ...process.env, SIM_WORKER: this.#broken ?? 'none' },
        })
      this.#ended(await outcomeOf(child, { seed, ...this.#task }))
    }
    child?.kill()
  }

  #take(): number | null {
    if (this.#broken && this.failures.length > 0) return null
    return this.#next < this.#first + this.#seeds ? this.#next++ : null
  }

  #ended(outcome: Outcome): void {
    this.done++
    if ('report' in outcome) return addTo(this.sums, '', outcome.report)
    this.failures.push(outcome)
    if (this.#broken) return
    const replay = `npm run sim -- --first ${outcome.seed} --seeds 1 --operations ${this.#task.operations} --faults ${this.#task.faults}`
    process.stderr.write(`seed ${outcome.seed} failed: ${outcome.failure}\n  ${replay}\n`)
  }
}

function outcomeOf(child: ChildProcess, task: Task): Promise<Outcome> {
  return new Promise((resolve) => {
    const exited = (code: number | null) => resolve({ seed: task.seed, failure: `the process ended with ${code}` })
    child.once('exit', exited)
    child.once('message', (outcome) => {
      child.off('exit', exited)
      resolve(outcome as Outcome)
    })
    child.send(task)
  })
}

/** Numbers add up; of those that say how long, the greatest counts. */
function addTo(sums: Record<string, number>, prefix: string, report: object): void {
  for (const [name, value] of Object.entries(report) as [string, number | object][]) {
    const key = `${prefix}${name}`
    if (typeof value === 'object') addTo(sums, `${key}.`, value)
    else sums[key] = /longest|mended/.test(name) ? Math.max(sums[key] ?? 0, value) : (sums[key] ?? 0) + value
  }
}

async function work({ seed, ...options }: Task): Promise<Outcome> {
  try {
    return { seed, report: await ClusterModel.run(seed, options) }
  } catch (error) {
    return { seed, failure: error instanceof Error ? (error.stack ?? error.message) : String(error) }
  }
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      seeds: { type: 'string', default: '100' },
      first: { type: 'string', default: '1' },
      operations: { type: 'string', default: `${WHOLE_SEED.operations}` },
      faults: { type: 'string', default: `${WHOLE_SEED.faults}` },
      jobs: { type: 'string', default: '1' },
      break: { type: 'string' },
      json: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  })
  if (values.help) {
    process.stdout.write(USAGE)
    return
  }
  if (values.break !== undefined && !BREAKS[values.break]) throw new Error(`--break ${values.break}`)
  const numberOf = (name: 'seeds' | 'first' | 'operations' | 'faults' | 'jobs') => {
    const number = Number(values[name])
    if (!Number.isSafeInteger(number) || number < (name === 'first' ? 0 : 1))
      throw new Error(`--${name} ${values[name]}`)
    return number
  }
  const [seeds, first, operations, faults] = [
    numberOf('seeds'),
    numberOf('first'),
    numberOf('operations'),
    numberOf('faults'),
  ]
  const run = new SeedRun({ first, seeds, operations, faults, broken: values.break })
  const startMs = performance.now()
  const progress = () => {
    const seconds = (performance.now() - startMs) / 1000
    const minutesLeft = run.done === 0 ? '?' : Math.ceil((run.left * seconds) / run.done / 60)
    const rate = (run.done / seconds).toFixed(2)
    process.stderr.write(
      `${run.done} of ${seeds} seeds, ${rate}/s, ${minutesLeft} min left, ${run.failures.length} failed\n`,
    )
  }
  const timer = setInterval(progress, PROGRESS_MS)
  await run.run(numberOf('jobs'))
  clearInterval(timer)
  const failed = run.failures.map(({ seed }) => seed)
  const summary = { first, seeds, failed, seconds: Math.round((performance.now() - startMs) / 1000), ...run.sums }
  if (values.json) process.stdout.write(`${JSON.stringify(summary)}\n`)
  else for (const [name, value] of Object.entries(summary)) process.stdout.write(`${name.padEnd(36)} ${value}\n`)
  if (values.break) process.stdout.write(`${run.failures[0]?.failure ?? 'not found'}\n`)
  process.exitCode = failed.length > 0 === (values.break !== undefined) ? 0 : 1
}

if (process.env.SIM_WORKER) {
  BREAKS[process.env.SIM_WORKER]?.()
  process.on('message', (task: Task) => void work(task).then((outcome) => process.send?.(outcome)))
} else await main()
