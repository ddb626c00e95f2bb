import { mkdirSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { commandExists, testUnless } from './require-command.ts'
import { runStestr, type TestResults, type TestSelection } from './stestr.ts'

/** OpenStack's own acceptance suite as Debian packages it, with Cinder's plug-in. */

export const isTempestThere = commandExists('tempest') && commandExists('stestr') && commandExists('keystone-manage')
export const withTempest = testUnless(
  !isTempestThere && 'apt-get install tempest cinder-tempest-plugin keystone glance-api',
)

export interface TempestSettings {
  keystoneUrl: string
  /** Accounts of one project each, by their names; all have the same password. */
  accounts: { admins: readonly string[]; members: readonly string[] }
  password: string
  imageIds: readonly [string, string]
}

/** Runs all tests of which the name matches one expression of `include`, and none of `exclude`. */
export async function runTempest(
  directory: string,
  settings: TempestSettings,
  selection: Pick<TestSelection, 'include' | 'exclude'>,
): Promise<TestResults> {
  mkdirSync(path.join(directory, 'lock'))
  writeFileSync(path.join(directory, 'tempest.conf'), configuration(directory, settings))
  writeFileSync(path.join(directory, 'accounts.yaml'), accountsFile(settings))
  const env = { TEMPEST_CONFIG_DIR: directory, TEMPEST_CONFIG: 'tempest.conf' }
  return runStestr(directory, { tests: 'tempest/test_discover', ...selection }, env)
}

const accountsFile = ({ accounts: { admins, members }, password }: TempestSettings): string =>
  [...admins.map((name) => ({ name, admin: true })), ...members.map((name) => ({ name, admin: false }))]
    .map(({ name, admin }) =>
      [
        `- username: ${name}`,
        `  project_name: ${name}`,
        `  password: ${password}`,
        '  domain_name: Default',
        `  roles: [${admin ? 'admin, ' : ''}member, reader]`,
        ...(admin ? ['  types: [admin]'] : []),
        '',
      ].join('\n'),
    )
    .join('\n')

const configuration = (directory: string, { keystoneUrl, accounts, password, imageIds }: TempestSettings): string => `
[DEFAULT]
log_file = ${directory}/tempest.log
[auth]
use_dynamic_credentials = false
test_accounts_file = ${directory}/accounts.yaml
admin_username = ${accounts.admins[0]}
admin_password = ${password}
admin_project_name = ${accounts.admins[0]}
admin_domain_name = Default
[identity]
uri_v3 = ${keystoneUrl}
auth_version = v3
region = RegionOne
[identity-feature-enabled]
api_v3 = true
[service_available]
cinder = true
glance = true
nova = false
neutron = false
swift = false
[compute]
image_ref = ${imageIds[0]}
image_ref_alt = ${imageIds[1]}
[image]
region = RegionOne
[volume]
region = RegionOne
catalog_type = volumev3
min_microversion = 3.0
max_microversion = 3.71
build_interval = 1
storage_protocol = nbd
vendor_name = Collie
manage_volume_ref = source-name,volume-%s
manage_snapshot_ref = source-name,snapshot-%s
[volume-feature-enabled]
backup = true
snapshot = true
clone = true
manage_volume = true
manage_snapshot = true
volume_revert = true
consistency_group = true
extend_attached_volume = false
extend_attached_encrypted_volume = false
api_v3 = true
[oslo_concurrency]
lock_path = ${directory}/lock
`
