import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { stringify } from 'yaml'
import { Collie } from './collie.ts'
import { ForkedPrograms } from './forked-programs.ts'
import { sharedGlance } from './glance.ts'
import { Keystone } from './keystone.ts'
import { commandExists, testUnless } from './require-command.ts'
import { runStestr, type TestResults, type TestSelection } from './stestr.ts'

/**
 * The cloud that the functional tests of OpenStack's own clients expect: Keystone with an administrator and two members, Glance, and
 * block storage with upstream's quota of GiB. No compute service, and of an object store only the name in the catalog: tests take it
 * for a sign that there are backups.
 */

const PROGRAMS = {
  'keystone-manage': 'keystone',
  'glance-api': 'glance-api',
  stestr: 'python3-stestr',
  tempest: 'tempest', // the tests of the two command lines are written with it
  openstack: 'python3-openstackclient',
  cinder: 'python3-cinderclient',
}
const QUOTA_GIB = 1000
/** By the names that the tests ask for: which account, in the project of its name. */
const CLOUDS = { 'devstack-admin': 'admin', devstack: 'demo', 'devstack-alt': 'alt_demo' }

const missing = Object.entries(PROGRAMS).flatMap(([program, name]) => (commandExists(program) ? [] : [name]))
export const withSuiteCloud = testUnless(missing.length > 0 && `apt-get install ${missing.join(' ')}`)

export class SuiteCloud {
  readonly collie: Collie
  readonly #keystone: Keystone
  readonly #clients: ForkedPrograms
  readonly #directory = mkdtempSync(path.join(tmpdir(), 'collie-suite-'))

  private constructor(keystone: Keystone, collie: Collie, clients: ForkedPrograms) {
    this.#keystone = keystone
    this.#clients = clients
    this.collie = collie
  }

  /** Null where programs are missing. */
  static async start(): Promise<SuiteCloud | null> {
    if (missing.length > 0) return null
    const glance = await sharedGlance()
    const keystone = await Keystone.start()
    await keystone.createUser('cinder', await keystone.createProject('service'), ['service'])
    for (const name of ['demo', 'alt_demo']) {
      await keystone.createUser(name, await keystone.createProject(name), ['member', 'reader'])
    }
    const collie = await Collie.create(
      '--auth=keystone',
      `--keystone-url=${keystone.url}`,
      `--keystone-password=${keystone.password}`,
      `--image-service-url=${glance.url}`,
      `--quota-gigabytes=${QUOTA_GIB}`,
      '--keystone-timeout-seconds=60', // it answers one request at a time
    )
    const cloud = new SuiteCloud(keystone, collie, await ForkedPrograms.start('openstack', 'cinder'))
    await collie.start()
    const url = `${collie.info.addresses.api}/$(project_id)s`
    for (const type of ['block-storage', 'volumev3', 'volume']) await keystone.register(type, type, url)
    await keystone.register('image', 'glance', glance.url)
    await keystone.register('object-store', 'swift', `${glance.url}/nowhere`)
    await glance.images.create('', {
      name: 'cirros-0.6-uec', // the one that is picked by its name
      diskFormat: 'raw',
      containerFormat: 'bare',
      visibility: null,
      isProtected: null,
      properties: {},
    })
    return cloud
  }

  /** Runs tests as an administrator of this cloud, who is known by the environment and by `clouds.yaml`. */
  async run(selection: TestSelection): Promise<TestResults> {
    const directory = path.join(this.#directory, selection.tests)
    const env = {
      ...this.#keystone.openrc('admin', 'admin'),
      OS_TENANT_NAME: 'admin',
      OS_VOLUME_API_VERSION: '3',
      PATH: [this.#clients.directory, process.env.PATH].join(path.delimiter),
      OS_CINDERCLIENT_EXEC_DIR: this.#clients.directory,
      OS_CLIENT_CONFIG_FILE: path.join(this.#directory, 'clouds.yaml'),
      OS_TEST_TIMEOUT: '120',
    }
    writeFileSync(env.OS_CLIENT_CONFIG_FILE, this.#clouds())
    const result = await runStestr(directory, selection, env)
    const counts = [`${result.passed} passed`, `${result.skipped.length} skipped`, `${result.failed.length} failed`]
    console.log(`${selection.tests}: ${counts.join(', ')}`)
    return result
  }

  async stop(): Promise<void> {
    await this.collie.dispose()
    await this.#keystone.stop()
    await this.#clients.stop()
    rmSync(this.#directory, { recursive: true, force: true })
  }

  #clouds(): string {
    const clouds = Object.entries(CLOUDS).map(([cloud, name]) => {
      const { url: auth_url, password } = this.#keystone
      const domains = { user_domain_id: 'default', project_domain_id: 'default' }
      const auth = { auth_url, username: name, password, project_name: name, ...domains }
      // openstacksdk's tests go by an old name of the service, which openstacksdk no longer knows by itself.
      return [cloud, { auth, region_name: 'RegionOne', identity_api_version: '3', has_volume: true }]
    })
    return stringify({ clouds: Object.fromEntries(clouds) })
  }
}
