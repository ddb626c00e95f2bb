import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { listenAsApi } from '../../src/control/api-sockets.ts'
import { errorFilter, onMethod } from '../../src/drivers/wrappers.ts'
import { systemNetwork } from '../../src/runtime/network.ts'
import { systemRandom } from '../../src/runtime/random.ts'
import { serviceHandlers } from '../../src/service-control.ts'
import { insertMany } from '../db/harness.ts'
import {
  availableVolume,
  contextOf,
  createHarness,
  type HarnessOptions,
  member,
  newAttachment,
  newSnapshot,
  newVolume,
  TEST_SETTINGS,
} from '../services/harness.ts'
import { groupOf } from '../services/scenarios.ts'
import { runCommandLine } from './live-node.ts'

/** Services with their control socket, as the role api has them, and the command line of the same directory. */
async function createApi(options: HarnessOptions = {}) {
  const directory = mkdtempSync(path.join(tmpdir(), 'collie-api-'))
  const harness = await createHarness(options)
  const listener = await listenAsApi(systemNetwork, systemRandom, directory, serviceHandlers(harness.services), {
    onDefect: (error) => expect.unreachable(String(error)),
  })
  onTestFinished(async () => {
    await listener.close()
    rmSync(directory, { recursive: true, force: true })
  })
  return { ...harness, run: (...words: string[]) => runCommandLine(['--data-dir', directory, ...words]) }
}

const asker = contextOf({ requestId: 'req-that-asked' })

test('a volume that could not grow tells the whole story', async () => {
  const { services, run, ...rest } = await createApi({ filters: [errorFilter(onMethod('extendVolume'), 'before')] })
  const id = await availableVolume({ services, ...rest }, { name: 'data' })
  await services.snapshots.create(member, { ...newSnapshot(id), name: 'before' })
  await services.idle()
  await services.volumes.extend(asker, id, 2)
  await services.idle()
  const { out, code } = await run('volume', 'explain', id)
  expect(code).toBe(0)
  const lines = out.split('\n')
  expect(lines[0]).toMatch(
    new RegExp(`^volume ${id} "data": error_extending since \\d{4}-\\d\\d-\\d\\dT[\\d:]{8} UTC$`),
  )
  expect(lines[1]).toBe('1 GiB, project project, on test-host@memory#memory')
  expect(lines.slice(2, 5)).toEqual([
    'Why: The storage backend failed: injected fault in extendVolume',
    'Work: none goes on or waits.',
    'Snapshots:',
  ])
  expect(lines[5]).toMatch(/available {2}before$/)
  expect(out).toMatch(/ERROR {2}extend volume:Volume Driver failed to extend volume\. {2}req-that-asked$/m)
  expect(lines.at(-1)).toContain(`\`openstack volume set --state available ${id}\``)
})

test('work that failed and comes again says when, and what it met', async () => {
  const slow = { ...TEST_SETTINGS.work, attemptsMax: 5, backoffMs: 3_600_000, backoffMaxMs: 3_600_000 }
  const { services, run } = await createApi({
    filters: [errorFilter(onMethod('createVolume'), 'before')],
    settings: { work: slow },
  })
  const { id } = await services.volumes.create(asker, newVolume())
  await expect.poll(async () => (await services.explain(id))?.work?.attempt).toBe(2)
  const { out } = await run('volume', 'explain', id)
  expect(out).toMatch(
    /^Work: volume-create, step provision, attempt 2, is tried again in 3\d{3} s; the last attempt failed: The storage backend failed: injected fault in createVolume$/m,
  )
  expect(out).toContain('Nothing need be done')
  const told = JSON.parse((await run('volume', 'explain', id, '--json')).out)
  expect(told).toMatchObject({ id, kind: 'volume', status: 'creating', work: { kind: 'volume-create', attempt: 2 } })
})

test('a status that nothing stands behind says so', async () => {
  const { services, run, ...rest } = await createApi()
  const id = await availableVolume({ services, ...rest })
  await services.volumes.resetStatus(member, id, 'creating')
  const explain = async () => (await run('volume', 'explain', id)).out
  expect(await explain()).toContain('Nothing works on it: an administrator wrote this status.')
  for (const status of ['retyping', 'maintenance', 'backing-up']) {
    await services.volumes.resetStatus(member, id, status)
    expect(await explain()).toContain(`\`openstack volume set --state available ${id}\` makes it usable again`)
  }
})

test('a volume in error is not called empty when it was usable before', async () => {
  const { services, run, ...rest } = await createApi()
  const id = await availableVolume({ services, ...rest })
  await services.volumes.resetStatus(member, id, 'error')
  const { out } = await run('volume', 'explain', id)
  expect(out).toContain('If it was never available, it holds nothing')
  expect(out).toContain(`\`openstack volume set --state available ${id}\``)
})

test('attachments are shown with their volume, and explained by themselves', async () => {
  const { services, run, ...rest } = await createApi()
  const id = await availableVolume({ services, ...rest })
  const instanceId = '22222222-2222-2222-2222-222222222222'
  const attachment = await services.attachments.create(member, newAttachment(id, { instanceId }))
  const story = (await run('volume', 'explain', id)).out
  expect(story).toContain(`  ${attachment.id}  reserved  server ${instanceId}  no host yet`)
  expect(story).toContain('It waits for the compute service.')
  expect((await run('volume', 'explain', attachment.id)).out).toContain(`attachment ${attachment.id}: reserved since`)
})

test('a snapshot has a command of its own', async () => {
  const { services, run, ...rest } = await createApi({ filters: [errorFilter(onMethod('deleteSnapshot'), 'before')] })
  const volumeId = await availableVolume({ services, ...rest })
  const { id } = await services.snapshots.create(member, newSnapshot(volumeId))
  await services.idle()
  await services.snapshots.delete(asker, id)
  await services.idle()
  const { out } = await run('snapshot', 'explain', id)
  expect(out).toContain(`of volume ${volumeId}`)
  expect(out).toContain('delete snapshot:Snapshot failed to delete.')
  expect(out).toContain(`\`openstack volume snapshot delete --force ${id}\``)
  expect(await run('volume', 'explain', id)).toMatchObject({
    code: 66,
    err: expect.stringContaining('there is no volume'),
  })
  expect(await run('snapshot', 'explain', volumeId)).toMatchObject({ code: 66 })
})

test('a group is explained with its volumes, and a snapshot of one with its snapshots', async () => {
  const { services, run, ...rest } = await createApi({
    filters: [errorFilter(onMethod('createGroupSnapshot'), 'before')],
  })
  const groupId = await groupOf({ services, ...rest })
  const { id } = await services.groupSnapshots.create(asker, { groupId, name: null, description: null })
  await services.idle()
  const group = await run('group', 'explain', groupId)
  expect(group.out).toContain(`group ${groupId} "g": available since`)
  expect(group.out).toMatch(/Volumes:\n(.*available.*\n?){2}/)
  const { out } = await run('group', 'explain', id)
  expect(out).toContain(`group snapshot ${id}: error since`)
  expect(out).toContain('Why: The storage backend failed: injected fault in createGroupSnapshot')
  expect(out).toMatch(/Snapshots:\n(.*error.*\n?){2}/)
  expect(out).toContain('create group snapshot:Group snapshot failed to create.')
  expect(out).toContain(`\`cinder group-snapshot-delete ${id}\``)
  expect(await run('group', 'explain', 'nothing')).toMatchObject({ code: 66 })
  expect(await run('volume', 'explain', groupId)).toMatchObject({ code: 66 })
})

test('volumes are listed over pages, by status and by project', async () => {
  const { services, run, db, ...rest } = await createApi()
  const first = await availableVolume({ services, db, ...rest }, { name: 'a\u001b[31m' })
  const [row] = await db('volumes').where({ id: first })
  const more = Array.from({ length: 1500 }, (_, index) => ({ ...row, id: `volume-${index}`, name: null }))
  await insertMany(db, 'volumes', more)
  await db('volumes').where({ id: 'volume-7' }).update({ status: 'error', project_id: 'other' })
  expect(JSON.parse((await run('volume', 'list', '--json')).out)).toHaveLength(1501)
  const { out } = await run('volume', 'list')
  expect(out.split('\n')[0]).toMatch(/^ID +STATUS +GIB +PROJECT +HOST +NAME$/)
  expect(out).toContain('a\\x1b[31m')
  expect((await run('volume', 'list', '--status', 'error')).out).toMatch(/^ID.*\nvolume-7 +error +1 +other/)
  expect(JSON.parse((await run('volume', 'list', '--project', 'other', '--json')).out)).toHaveLength(1)
  expect((await run('volume', 'list', '--status', 'maintenance')).out).toBe('There are no volumes.')
})

test('without an API the command says what to start', async () => {
  const directory = mkdtempSync(path.join(tmpdir(), 'collie-none-'))
  onTestFinished(() => rmSync(directory, { recursive: true }))
  const { code, err } = await runCommandLine(['--data-dir', directory, 'volume', 'list'])
  expect([code, err]).toEqual([69, expect.stringContaining('no block storage API is running on')])
})
