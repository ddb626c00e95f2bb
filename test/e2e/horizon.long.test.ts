import { afterAll, beforeAll, describe, expect, vi } from 'vitest'
import { Collie, printLogOfFailures } from '../tools/collie.ts'
import { Horizon, isHorizonThere, type Seen, withHorizon } from '../tools/horizon.ts'
import { Keystone } from '../tools/keystone.ts'

/** The dashboard's pages of volumes, snapshots, backups, groups and types, as a user and an administrator click through them. */

vi.setConfig({ testTimeout: 120_000, hookTimeout: 240_000 })

let keystone: Keystone
let collie: Collie
let user: Horizon
let admin: Horizon

printLogOfFailures(() => collie)

beforeAll(async () => {
  if (!isHorizonThere) return
  keystone = await Keystone.start()
  const service = await keystone.createProject('service')
  await keystone.createUser('cinder', service, ['service'])
  const demo = await keystone.createProject('demo')
  await keystone.createUser('demo', demo, ['member', 'reader'])
  collie = await Collie.create(
    '--auth=keystone',
    `--keystone-url=${keystone.url}`,
    `--keystone-password=${keystone.password}`,
  )
  await collie.start()
  await keystone.register('volumev3', 'cinderv3', `${collie.info.addresses.api}/$(project_id)s`)
  const { url, password } = keystone
  ;[user, admin] = await Promise.all([
    Horizon.logIn(url, { user: 'demo', password }),
    Horizon.logIn(url, { user: 'admin', password }),
  ])
})
afterAll(async () => {
  await Promise.all([user?.close(), admin?.close()])
  await collie?.dispose()
  await keystone?.stop()
})

/** Posts a form that is taken. */
async function submit(horizon: Horizon, page: string, form: Record<string, string | number>): Promise<Seen> {
  const seen = await horizon.visit(page, form)
  expect(seen.errors).toEqual({})
  return seen
}

/** The rows of a table on a page, once they have the statuses. */
async function rows(page: string, table: string, statuses: Record<string, string>) {
  return await vi.waitFor(
    async () => {
      const shown = (await user.visit(page)).tables[table]!
      expect(Object.fromEntries(shown.map(({ name, status }) => [name, status]))).toEqual(statuses)
      return shown
    },
    { timeout: 60_000, interval: 100 },
  )
}

const newVolume = (name: string) => ({
  ...{ name, description: '', size: 1, volume_source_type: 'no_source_type', type: '', availability_zone: '' },
})

async function createVolume(name: string): Promise<string> {
  const { messages } = await submit(user, '/project/volumes/create/', newVolume(name))
  expect(messages).toContain(`Creating volume "${name}"`)
  const { id } = (await rows('/project/volumes/', 'volumes', { [name]: 'available' }))[0]!
  return id
}

async function removeVolume(id: string, name: string): Promise<void> {
  const { messages } = await submit(user, '/project/volumes/', { action: `volumes__delete__${id}` })
  expect(messages).toContain(`Scheduled deletion of Volume: ${name}`)
  await rows('/project/volumes/', 'volumes', {})
}

describe('Horizon', () => {
  withHorizon('makes a volume, changes it, and deletes it', async () => {
    const id = await createVolume('first')
    await submit(user, `/project/volumes/${id}/update/`, { name: 'renamed', description: 'of a test', bootable: 'on' })
    await submit(user, `/project/volumes/${id}/extend/`, { name: 'renamed', orig_size: 1, new_size: 2 })
    await rows('/project/volumes/', 'volumes', { renamed: 'available' })
    expect((await user.visit(`/project/volumes/${id}/`)).status).toBe(200)
    expect((await user.visit('/project/volumes/no-such-volume/')).status).toBe(302)
    const { errors } = await user.visit(`/project/volumes/${id}/extend/`, { name: '', orig_size: 2, new_size: 1 })
    expect(Object.keys(errors)).toEqual(['new_size'])
    await removeVolume(id, 'renamed')
  })

  withHorizon('takes a snapshot, makes a volume of it, and says why the snapshot keeps its volume', async () => {
    const id = await createVolume('source')
    const form = { name: 'point', description: '', volume_id: id }
    await submit(user, `/project/volumes/${id}/create_snapshot/`, form)
    const { id: snapshotId } = (await rows('/project/snapshots/', 'volume_snapshots', { point: 'available' }))[0]!
    expect((await user.visit(`/project/snapshots/${snapshotId}`)).status).toBe(200)
    const refused = await submit(user, '/project/volumes/', { action: `volumes__delete__${id}` })
    expect(refused.messages.join()).toMatch(/source/)
    await submit(user, '/project/volumes/create/', {
      ...newVolume('copy'),
      volume_source_type: 'snapshot_source',
      snapshot_source: snapshotId,
    })
    const volumes = await rows('/project/volumes/', 'volumes', { source: 'available', copy: 'available' })
    await submit(user, '/project/snapshots/', { action: `volume_snapshots__delete__${snapshotId}` })
    await rows('/project/snapshots/', 'volume_snapshots', {})
    for (const volume of volumes) {
      await submit(user, '/project/volumes/', { action: `volumes__delete__${volume.id}` })
    }
    await rows('/project/volumes/', 'volumes', {})
  })

  withHorizon('backs a volume up and restores it', async () => {
    const id = await createVolume('kept')
    await submit(user, `/project/volumes/${id}/create_backup/`, {
      ...{ name: 'backup', description: '', container_name: '', volume_id: id, snapshot_id: '' },
    })
    const { id: backupId } = (await rows('/project/backups/', 'volume_backups', { backup: 'available' }))[0]!
    expect((await user.visit(`/project/backups/${backupId}/`)).status).toBe(200)
    await submit(user, `/project/backups/${backupId}/restore/`, {
      ...{ volume_id: id, backup_id: backupId, backup_name: 'backup' },
    })
    await rows('/project/volumes/', 'volumes', { kept: 'available' })
    await submit(user, '/project/backups/', { action: `volume_backups__delete__${backupId}` })
    await rows('/project/backups/', 'volume_backups', {})
    await removeVolume(id, 'kept')
  })

  withHorizon('offers a volume to another project', async () => {
    const id = await createVolume('offered')
    const { messages } = await user.visit(`/project/volumes/${id}/create_transfer/`, { name: 'offer', volume_id: id })
    expect(messages).toEqual(['Created volume transfer: "offer".'])
    await rows('/project/volumes/', 'volumes', { offered: 'awaiting-transfer' })
    await submit(user, '/project/volumes/', { action: `volumes__delete_transfer__${id}` })
    await rows('/project/volumes/', 'volumes', { offered: 'available' })
    await removeVolume(id, 'offered')
  })

  withHorizon('shows an administrator the types, quotas and services, and lets him make a type', async () => {
    const made = await submit(admin, '/admin/volume_types/create_type', {
      name: 'gold',
      vol_type_description: 'of a test',
    })
    expect(made.messages).toEqual(['Successfully created volume type: gold'])
    await submit(admin, '/admin/volume_types/create_qos_spec', { name: 'fast', consumer: 'back-end' })
    const { volume_types, qos_specs } = (await admin.visit('/admin/volume_types/')).tables
    expect(volume_types!.map(({ name }) => name)).toContain('gold')
    expect(qos_specs!.map(({ name }) => name)).toEqual(['fast'])
    const [gold] = volume_types!.filter(({ name }) => name === 'gold')
    await submit(admin, `/admin/volume_types/${gold!.id}/create_type_encryption/`, {
      ...{ name: 'gold', volume_type_id: gold!.id, provider: 'luks', control_location: 'front-end' },
      ...{ cipher: 'aes-xts-plain64', key_size: 256 },
    })
    expect((await admin.visit(`/admin/volume_types/${gold!.id}/type_encryption_detail/`)).status).toBe(200)
    const services = (await admin.visit('/admin/info/')).tables.cinder_services!
    expect(services.map(({ status }) => status)).toEqual(['enabled', 'enabled', 'enabled'])
    const quotas = (await admin.visit('/admin/defaults/')).tables.volume_quotas!
    expect(quotas.map(({ name }) => name)).toContain('volumes_gold')
    for (const page of ['volumes', 'snapshots', 'backups', 'group_types', 'volume_groups', 'vg_snapshots']) {
      expect([page, (await admin.visit(`/admin/${page}/`)).status]).toEqual([page, 200])
    }
  })

  withHorizon('shows a user the pages of groups', async () => {
    for (const page of ['volume_groups', 'vg_snapshots', 'api_access']) {
      expect([page, (await user.visit(`/project/${page}/`)).status]).toEqual([page, 200])
    }
  })
})
