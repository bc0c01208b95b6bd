// Package controllers holds the one name that cilium takes from the module of the same path.
package controllers

// DerivedServiceAnnotation names the derived Service of a ServiceImport.
const DerivedServiceAnnotation = "multicluster.kubernetes.io/derived-service"
