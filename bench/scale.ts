/**
 * What many volumes cost: create, show and pages of 1000 with 1,000 and with 100,000 volumes in the database, on SQLite and on
 * PostgreSQL, all of one project. Two whole Collies run side by side and each request goes to one and then to
 * the other, so that the machine is the same to both; the ratios of the medians are what counts.
 *
 * Usage: npm run build && tsx bench/scale.ts [--small 1000] [--large 100000] [--databases sqlite,postgres] [--rounds 40] [--json] [--help]
 */
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { openExisting } from '../src/db/database.ts'
import { Collie } from '../test/tools/collie.ts'
import { PostgresServer } from '../test/tools/postgres-server.ts'
import { median } from './fio.ts'
import { HttpClient } from './http-client.ts'
import { readOptions } from './options.ts'

const options = readOptions(import.meta.filename, {
  small: 1000,
  large: 100_000,
  databases: ['sqlite', 'postgres'],
  rounds: 40,
})

const PROJECT = '0123456789abcdef0123456789abcdef'
const POLL_MS = 1
/** A page costs as much as many shows. */
const SHOWS_PER_ROUND = 10

/** A Collie with so many volumes in its database, which its store knows nothing of. */
class Filled {
  readonly #collie: Collie
  readonly #client: HttpClient
  readonly #ids: readonly string[]

  private constructor(collie: Collie, ids: readonly string[]) {
    this.#collie = collie
    this.#ids = ids
    const headers = { 'x-auth-token': `bench:${PROJECT}`, 'openstack-api-version': 'volume 3.70' }
    this.#client = new HttpClient(`${collie.info.addresses.api}/${PROJECT}`, headers)
  }

  static async create(volumes: number, postgres: PostgresServer | null): Promise<Filled> {
    const url = postgres?.url(`filled_${volumes}`) ?? null
    await postgres?.execute(`create database filled_${volumes}`)
    const collie = await Collie.create('--auth=noauth', ...(url === null ? [] : [`--database=${url}`]))
    await collie.start()
    const ids = await fill(url === null ? { file: path.join(collie.dataDir, 'collie.db') } : { url }, volumes)
    return new Filled(collie, ids)
  }

  /** Some volume of the middle, another one each time. */
  id(round: number): string {
    return this.#ids[(Math.floor(this.#ids.length / 4) + round * 7) % this.#ids.length]!
  }

  async createAvailable(): Promise<string> {
    const body = { volume: { size: 1, name: 'bench' } }
    const { volume } = await this.#client.json<{ volume: { id: string } }>('POST', '/volumes', body)
    for (;;) {
      const { status } = JSON.parse(await this.get(`/volumes/${volume.id}`)).volume
      if (status === 'available') return volume.id
      if (status !== 'creating') throw new Error(`the volume ${volume.id} is ${status}`)
      await sleep(POLL_MS)
    }
  }

  get(url: string): Promise<string> {
    return this.#client.send('GET', url)
  }

  delete(id: string): Promise<string> {
    return this.#client.send('DELETE', `/volumes/${id}`)
  }

  async stop(): Promise<void> {
    this.#client.close()
    await this.#collie.dispose()
  }
}

/** Answers the ids of the project's volumes, oldest first. */
async function fill(location: Parameters<typeof openExisting>[0], volumes: number): Promise<string[]> {
  const db = await openExisting(location)
  const isPostgres = 'url' in location
  const numbers = isPostgres
    ? 'with numbers(n) as (select generate_series(1, ?)) '
    : 'with recursive numbers(n) as (select 1 union all select n + 1 from numbers where n < ?) '
  const digits = (n: string, count: number) =>
    isPostgres ? `lpad((${n})::text, ${count}, '0')` : `printf('%0${count}d', ${n})`
  const no = isPostgres ? 'false' : '0'
  try {
    await db.raw(
      `insert into volumes (id, project_id, user_id, name, size_gib, status, availability_zone, volume_type_id, bootable, multiattach,
         metadata, created_at)
       ${numbers} select '00000000-0000-4000-8000-' || ${digits('n', 12)}, '${PROJECT}', 'bench',
         'volume-' || ${digits('n * 7919 % 100003', 6)}, 1, 'available', 'nova', (select id from volume_types limit 1), ${no}, ${no}, '{}',
         '2026-01-01T00:00:00.' || ${digits('n', 6)} from numbers`,
      [volumes],
    )
    if (isPostgres) await db.raw('vacuum analyze') // as it does by itself before long
    return await db('volumes').where({ project_id: PROJECT }).orderBy('created_at').pluck('id')
  } finally {
    await db.destroy()
  }
}

const PAGE = '/volumes/detail?limit=1000'

/** What is measured, by a name. What it leaves is taken away again when the clock stands. */
const REQUESTS: Readonly<Record<string, (of: Filled, round: number) => Promise<string>>> = {
  'create to available': (of) => of.createAvailable(),
  show: (of, round) => of.get(`/volumes/${of.id(round)}`),
  'page, the newest': (of) => of.get(PAGE),
  // A tenth of a page: there have to be as many behind the marker of the few.
  'page of 100, in the middle': (of, round) => of.get(`/volumes/detail?limit=100&marker=${of.id(round)}`),
  'page, of all projects': (of) => of.get(`${PAGE}&all_tenants=1`),
  'page, of a status': (of) => of.get(`${PAGE}&status=available`),
  ...Object.fromEntries(
    ['id', 'name', 'status', 'size', 'availability_zone', 'bootable', 'host', 'updated_at'].map((key) => [
      `page, by ${key}`,
      (of: Filled) => of.get(`${PAGE}&sort=${key}:asc`),
    ]),
  ),
  'page, by size, of all projects': (of) => of.get(`${PAGE}&all_tenants=1&sort=size:desc`),
}

interface Result {
  database: string
  metric: string
  smallMs: number
  largeMs: number
}

async function compare(database: string, small: Filled, large: Filled): Promise<Result[]> {
  const { rounds } = options
  const results: Result[] = []
  for (const [metric, ask] of Object.entries(REQUESTS)) {
    const times = new Map<Filled, number[]>([
      [small, []],
      [large, []],
    ])
    const count = metric === 'show' ? rounds * SHOWS_PER_ROUND : rounds
    for (let round = -Math.ceil(count / 10); round < count; round++) {
      for (const of of round % 2 === 0 ? [small, large] : [large, small]) {
        const beganMs = performance.now()
        const answer = await ask(of, round)
        if (round >= 0) times.get(of)!.push(performance.now() - beganMs) // those before warm it up
        if (metric === 'create to available') await of.delete(answer)
      }
    }
    results.push({ database, metric, smallMs: median(times.get(small)!), largeMs: median(times.get(large)!) })
  }
  return results
}

const results: Result[] = []
for (const database of options.databases) {
  const postgres = database === 'postgres' ? await PostgresServer.create() : null
  const filled: Filled[] = []
  try {
    for (const volumes of [options.small, options.large]) filled.push(await Filled.create(volumes, postgres))
    results.push(...(await compare(database, filled[0]!, filled[1]!)))
  } finally {
    for (const one of filled) await one.stop()
    await postgres?.dispose()
  }
}
if (options.json) console.log(JSON.stringify({ small: options.small, large: options.large, results }, null, 2))
else {
  console.log(
    `${'median, ms'.padEnd(34)}${String(options.small).padStart(10)}${String(options.large).padStart(10)}     ratio`,
  )
  for (const { database, metric, smallMs, largeMs } of results) {
    const ratio = (largeMs / smallMs).toFixed(2)
    console.log(
      `${`${database}: ${metric}`.padEnd(34)}${smallMs.toFixed(2).padStart(10)}${largeMs.toFixed(2).padStart(10)}${ratio.padStart(10)}`,
    )
  }
}
