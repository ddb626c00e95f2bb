import { describe, expect, it, onTestFinished } from 'vitest'
import { serveSqlite } from '../../src/db/connections.ts'
import { migrate } from '../../src/db/migrations.ts'
import { newDatabase, TYPE_ID } from './harness.ts'

/** A disk whose syncs end when the test says so. */
class HeldSync {
  begun = 0
  readonly #ends: { resolve: () => void; reject: (error: Error) => void }[] = []

  sync(): Promise<void> {
    this.begun++
    return new Promise((resolve, reject) => this.#ends.push({ resolve, reject }))
  }

  close(): void {}

  /** Ends the first sync that goes on. */
  end(error?: Error): void {
    const { resolve, reject } = this.#ends.shift()!
    if (error) reject(error)
    else resolve()
  }
}

async function heldDatabase() {
  const options = await newDatabase('SQLite')
  if (!('file' in options)) throw new Error('SQLite has files')
  const disk = new HeldSync()
  const db = await serveSqlite({ file: options.file, sync: disk }, migrate)
  let isOver = false
  onTestFinished(async () => {
    if (!isOver) await db.destroy()
  })
  return { db, disk, over: () => (isOver = true) }
}

/** Lets everything happen that waits for nothing outside. */
const settled = () => new Promise((resolve) => setImmediate(resolve))

const type = (name: string) => ({
  id: name === 'first' ? TYPE_ID : name,
  name,
  is_public: true,
  extra_specs: '{}',
  created_at: 'now',
})

/** What is told of a promise as long as it goes on. */
function watch(promise: Promise<unknown>): { ended: boolean } {
  const state = { ended: false }
  const end = () => {
    state.ended = true
  }
  promise.then(end, end)
  return state
}

describe('a commit to a SQLite file', () => {
  it('is answered when the log was synced after it, and those that come meanwhile share the next sync', async () => {
    const { db, disk } = await heldDatabase()
    const first = watch(db.transaction((trx) => trx('volume_types').insert(type('first'))))
    await settled()
    const others = ['second', 'third'].map((name) => watch(db('volume_types').insert(type(name))))
    await settled()
    expect([first.ended, disk.begun]).toEqual([false, 1])
    disk.end()
    await settled()
    expect([first.ended, others.map(({ ended }) => ended), disk.begun]).toEqual([true, [false, false], 2])
    disk.end()
    await settled()
    expect(others.map(({ ended }) => ended)).toEqual([true, true])
    expect(await db('volume_types').pluck('name')).toEqual(expect.arrayContaining(['first', 'second', 'third']))
    expect(disk.begun).toBe(2)
  })

  it('is told to nobody before it is durable', async () => {
    const { db, disk } = await heldDatabase()
    const write = db('volume_types').insert(type('first')).then()
    await settled()
    const read = db('volume_types').where({ name: 'first' }).first('id').then()
    const state = watch(read)
    await settled()
    expect(state.ended).toBe(false)
    disk.end()
    await write
    expect(await read).toEqual({ id: TYPE_ID })
  })

  it('needs no sync when nothing was written', async () => {
    const { db, disk } = await heldDatabase()
    await db.transaction((trx) => trx('volume_types').select())
    const undone = db.transaction(async (trx) => {
      await trx('volume_types').insert(type('first'))
      throw new Error('undo')
    })
    await expect(undone).rejects.toThrow('undo')
    expect(await db('volume_types').where({ name: 'first' })).toEqual([])
    expect(disk.begun).toBe(0)
  })

  it('fails with its sync, and so does all that follows: nobody knows any more what is on the disk', async () => {
    const { db, disk, over } = await heldDatabase()
    const write = db('volume_types').insert(type('first')).then()
    await settled()
    disk.end(Object.assign(new Error('EIO: i/o error, fdatasync'), { code: 'EIO' }))
    await expect(write).rejects.toMatchObject({ code: 'ServiceUnavailable' })
    await expect(db('volume_types').select().then()).rejects.toMatchObject({ code: 'ServiceUnavailable' })
    await expect(db('volume_types').insert(type('second')).then()).rejects.toMatchObject({ code: 'ServiceUnavailable' })
    expect(disk.begun).toBe(1)
    await expect(db.destroy()).rejects.toThrow('EIO')
    over()
  })
})

describe('a transaction on a SQLite file', () => {
  it('takes no statement after its end, also while another one is open', async () => {
    const { db, disk } = await heldDatabase()
    let ended: typeof db | undefined
    await db.transaction(async (trx) => {
      ended = trx
    })
    const open = db.transaction(async (trx) => {
      await expect(ended!('volume_types').insert(type('first')).then()).rejects.toThrow('after the end')
      await trx('volume_types').insert(type('second'))
    })
    await settled()
    disk.end()
    await open
    expect(await db('volume_types').whereIn('name', ['first', 'second']).pluck('name')).toEqual(['second'])
  })

  it('is alone: what others ask waits for its end', async () => {
    const { db, disk } = await heldDatabase()
    let proceed = () => {}
    const pause = new Promise<void>((resolve) => {
      proceed = resolve
    })
    const long = db.transaction(async (trx) => {
      await trx('volume_types').insert(type('first'))
      await pause
      await trx('volume_types').where({ name: 'first' }).update({ description: 'whole' })
    })
    const read = db('volume_types').where({ name: 'first' }).first('description').then()
    await settled()
    expect(disk.begun).toBe(0)
    proceed()
    await settled()
    disk.end()
    await long
    expect(await read).toEqual({ description: 'whole' })
  })
})
