import { describeProperties } from './properties.ts'

describeProperties({ SQLite: 5, PostgreSQL: 2 })
