import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, vi } from 'vitest'
import { Collie, printLogOfFailures } from '../tools/collie.ts'
import { sharedGlance } from '../tools/glance.ts'
import { AcceptanceTests, isGophercloudThere, withGophercloud } from '../tools/gophercloud.ts'
import { Keystone } from '../tools/keystone.ts'

/** gophercloud's own acceptance tests, with tokens of Debian's Keystone and images of Debian's Glance. */

vi.setConfig({ testTimeout: 120_000, hookTimeout: 240_000 }) // the suite is built first

const BLOCK_STORAGE = 'blockstorage/v3'
const EXTENSIONS = 'blockstorage/extensions'
const NOAUTH = 'blockstorage/noauth'
const VERSIONS = 'blockstorage'

const SERVED: Readonly<Record<string, readonly string[]>> = {
  [VERSIONS]: ['TestAPIVersionsList', 'TestAPIVersionsGet'],
  [BLOCK_STORAGE]: [
    'TestQuotasetGet',
    'TestQuotasetGetDefaults',
    'TestQuotasetGetUsage',
    'TestQuotasetUpdate',
    'TestQuotasetDelete',
    'TestSnapshots',
    'TestVolumes',
    'TestVolumesCascadeDelete',
    'TestVolumeTypes',
  ],
  [EXTENSIONS]: [
    'TestBackupsCRUD',
    'TestSchedulerHints',
    'TestSchedulerStatsList',
    'TestServicesList',
    'TestVolumeActionsUploadImageDestroy',
    'TestVolumeActionsReserveUnreserve',
    'TestVolumeActionsExtendSize',
    'TestVolumeActionsImageMetadata',
    'TestVolumeActionsSetBootable',
    'TestVolumeTenants',
  ],
  [NOAUTH]: ['TestSnapshotsList', 'TestSnapshotsCreateDelete', 'TestVolumesList', 'TestVolumesCreateDestroy'],
}

/** Tests of other things: they begin with a server of Nova, or ask for what Cinder itself has refused since it has types for it. */
const NOT_OURS: Readonly<Record<string, readonly string[]>> = {
  [VERSIONS]: [],
  [BLOCK_STORAGE]: ['TestVolumeAttachments', 'TestVolumesMultiAttach'],
  [EXTENSIONS]: ['TestVolumeActionsAttachCreateDestroy'],
  [NOAUTH]: [],
}

const directory = mkdtempSync(path.join(tmpdir(), 'collie-gophercloud-'))
const built = new Map<string, AcceptanceTests>()
const environments = new Map<string, Record<string, string>>()
let keystone: Keystone | undefined
let collie: Collie | undefined
let openCollie: Collie | undefined

printLogOfFailures(() => collie)

beforeAll(async () => {
  if (!isGophercloudThere) return
  const glance = await sharedGlance()
  keystone = await Keystone.start()
  const service = await keystone.createProject('service')
  await keystone.createUser('cinder', service, ['service'])
  collie = await Collie.create(
    '--auth=keystone',
    `--keystone-url=${keystone.url}`,
    `--keystone-password=${keystone.password}`,
    `--image-service-url=${glance.url}`,
  )
  openCollie = await Collie.create('--auth=noauth')
  await Promise.all([collie.start(), openCollie.start()])
  const { api } = collie.info.addresses
  // The extensions are tested through the client of version 2, which asks for nothing that version 3 has not.
  for (const version of ['volumev2', 'volumev3']) await keystone.register(version, version, `${api}/$(project_id)s`)
  await keystone.register('image', 'glance', glance.url)
  await keystone.register('compute', 'nova', `${glance.url}/v2`) // asked to delete an image, as Nova has Glance do that
  const choices = { OS_IMAGE_ID: 'i', OS_FLAVOR_ID: '1', OS_FLAVOR_ID_RESIZE: '2', OS_POOL_NAME: 'p', OS_EXTGW_ID: 'e' }
  const signedIn = { ...keystone.openrc('admin', 'admin'), OS_DOMAIN_NAME: 'Default', ...choices }
  const unknown = { OS_USERNAME: 'admin', OS_TENANT_NAME: 'admin', CINDER_ENDPOINT: openCollie.info.addresses.api! }
  for (const name of Object.keys(SERVED)) {
    built.set(name, await AcceptanceTests.build(name, directory))
    environments.set(name, name === NOAUTH ? { ...unknown, ...choices } : signedIn)
  }
})
afterAll(async () => {
  await Promise.all([collie?.dispose(), openCollie?.dispose()])
  await keystone?.stop()
  rmSync(directory, { recursive: true, force: true })
})

describe.each(Object.keys(SERVED))('gophercloud, %s', (name) => {
  withGophercloud('has the tests that are known here', async () => {
    expect((await built.get(name)!.list()).toSorted()).toEqual([...SERVED[name]!, ...NOT_OURS[name]!].toSorted())
  })

  for (const test of SERVED[name]!) {
    withGophercloud(test, () => built.get(name)!.run(test, environments.get(name)!))
  }
})
